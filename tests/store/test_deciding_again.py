"""What was true when a command was decided, and is not any more when the append lock is held, is decided again."""

import threading

import pytest
from sqlalchemy import text

from api.service import Service
from domain.errors import StoreUnavailable
from domain.events import EndReason, SessionRevoked
from domain.session import Limits
from store.deciding import Decider
from tests.clock import ManualClock
from tests.store.given import Caller, facts, one_batch, refusal, result

IDLE = Limits().normal.idle


def test_a_touch_that_waits_past_the_deadline_does_not_revive_what_readers_saw_end(
    service: Service, caller: Caller, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
):
    session = result(caller.creates())
    clock.advance(IDLE - 1)
    decided, prepare = threading.Event(), Decider.prepare
    monkeypatch.setattr(Decider, "prepare", lambda self, works: (prepare(self, works), decided.set()))
    with service.recorder.appending():
        touch = caller.touches(session)
        assert decided.wait(5)
        clock.advance(2)
    assert result(touch) is False
    last = facts(service)[-1]
    assert isinstance(last, SessionRevoked)
    assert (last.reason, last.ended_at) == (EndReason.INACTIVITY_TIMEOUT, session.deadline.at)


def test_without_the_key_store_only_those_are_refused_who_need_a_key(service: Service, caller: Caller):
    session = result(caller.creates("alice"))
    with service.keys_database.transaction() as connection:
        connection.execute(text("ALTER TABLE user_keys RENAME TO gone"))
    with one_batch(service, after="alice"):
        created, revoked, disabled = caller.creates("carol"), caller.revokes(session), caller.disables("alice")
    assert isinstance(refusal(created), StoreUnavailable)
    assert (result(revoked), result(disabled)) == (True, True)
    with service.keys_database.transaction() as connection:
        connection.execute(text("ALTER TABLE gone RENAME TO user_keys"))
    assert result(caller.creates("carol"))
