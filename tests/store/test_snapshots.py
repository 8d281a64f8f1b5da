"""Snapshots save reading and nothing else: without them every answer is the same."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from eventsourcing.persistence import StoredEvent
from sqlalchemy import delete, select

from api.service import Service
from domain.session import Limits, Session
from domain.user import Disabled, User, UserSnapshot
from store.schema import snapshots
from store.snapshots import EVERY, WAITING
from tests.clock import NOON, ManualClock
from tests.conftest import OpenService
from tests.store.given import PATIENCE_S, Caller, result, user

TOUCHES = int(os.environ.get("TEST_TOUCHES", "10000"))  # 100000 is the promise; the default keeps the suite quick
AT_ONCE = 250
EACH_TOUCH = Limits(touch_interval=0)


def touch(caller: Caller, session: Session, times: int) -> None:
    for _ in range(times // AT_ONCE):
        for future in [caller.touches(session) for _ in range(AT_ONCE)]:
            assert result(future) is True


def kept(service: Service) -> list[tuple[UUID, int]]:
    with service.database.reading() as connection:
        return [tuple(row) for row in connection.execute(select(snapshots.c.stream, snapshots.c.version))]


@contextmanager
def counted_rows(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[StoredEvent]]:
    """The rows of events and snapshots that are read to know a user."""
    rows: list[StoredEvent] = []
    read = service.mapper.to_domain_event

    def counted(stored: StoredEvent) -> Any:
        rows.append(stored)
        return read(stored)

    with monkeypatch.context() as patch:
        patch.setattr(service.mapper, "to_domain_event", counted)
        yield rows


def test_a_long_history_costs_few_rows_after_a_restart(open_service: OpenService, monkeypatch: pytest.MonkeyPatch):
    caller = Caller(open_service(EACH_TOUCH))
    session = result(caller.creates())
    touch(caller, session, TOUCHES)
    caller.service.close()

    restarted = Caller(open_service(EACH_TOUCH))
    with counted_rows(restarted.service, monkeypatch) as rows:
        assert result(restarted.touches(session)) is True
    assert 0 < len(rows) <= 600
    assert user(restarted.service).version == 2 + TOUCHES + 1


def test_without_snapshots_everything_is_the_same_but_the_rows_read(
    open_service: OpenService, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
):
    caller = Caller(open_service(EACH_TOUCH))
    sessions = [result(caller.creates(idp_name=name)) for name in ("first", "second", "third")]
    clock.advance(10)
    touch(caller, sessions[0], 1000)
    result(caller.revokes(sessions[1]))
    caller.service.close()
    service = open_service(EACH_TOUCH)
    with counted_rows(service, monkeypatch) as with_snapshots:
        before = user(service)
    service.close()

    service = open_service(EACH_TOUCH)
    with service.database.transaction() as connection:
        assert connection.execute(delete(snapshots)).rowcount == 1
    with counted_rows(service, monkeypatch) as without:
        after = user(service)
    assert (after.version, after.state()) == (before.version, before.state())
    assert len(with_snapshots) <= EVERY + AT_ONCE
    assert len(without) == before.version == 1005
    caller = Caller(service)
    assert [result(caller.touches(session)) for session in sessions] == [True, False, True]


def test_a_short_history_has_no_snapshot(open_service: OpenService):
    service = open_service()
    caller = Caller(service)
    for future in [caller.creates(f"user {n}") for n in range(EVERY)]:
        result(future)
    service.close()
    assert kept(open_service()) == []


def test_only_the_newest_snapshot_of_each_user_is_kept(open_service: OpenService):
    service = open_service(EACH_TOUCH)
    caller = Caller(service)
    for user_id in ("alice", "bob"):
        session = result(caller.creates(user_id))
        for future in [caller.touches(session, user_id) for _ in range(3 * EVERY)]:
            result(future)
    service.close()
    rows = dict(kept(service := open_service()))
    assert rows.keys() == {caller.stream("alice"), caller.stream("bob")}
    assert len(kept(service)) == 2
    assert min(rows.values()) >= 3 * EVERY


def test_an_older_snapshot_never_replaces_a_newer_one(service: Service):
    recorder, stream = service.ledger.snapshots.recorder, uuid4()
    for version in (250, 500, 251, 499):
        recorder.replace(StoredEvent(stream, version, "UserSnapshot", str(version).encode()))
    assert recorder.select_events(stream) == [StoredEvent(stream, 500, "UserSnapshot", b"500")]


def test_the_same_snapshot_again_changes_nothing(service: Service):
    recorder, stream = service.ledger.snapshots.recorder, uuid4()
    for _ in range(2):
        recorder.replace(StoredEvent(stream, 250, "UserSnapshot", b"state"))
    assert kept(service) == [(stream, 250)]


def test_a_snapshot_keeps_all_that_a_command_needs(service: Service, caller: Caller, clock: ManualClock):
    result(caller.creates(remember_me=True))
    clock.advance(61.000001)
    touched = result(caller.creates(idp_name="idp"))
    clock.advance(120)
    result(caller.touches(touched))
    for disable in (lambda: None, lambda: result(caller.disables())):
        disable()
        as_folded = user(service)
        stored = service.mapper.to_stored_event(UserSnapshot.take(as_folded))
        restored = service.mapper.to_domain_event(stored).mutate(None)
        assert isinstance(restored, User)
        assert vars(restored) == vars(as_folded)
    assert isinstance(restored.disabled, Disabled)


def test_a_snapshot_holds_no_personal_data_and_no_secret(service: Service, caller: Caller):
    token_hash = bytes(range(32))
    result(caller.creates("canary-user-77", token_hash=token_hash, device="canary device"))
    state = service.mapper.to_stored_event(UserSnapshot.take(user(service, "canary-user-77"))).state
    assert b"canary" not in state
    assert token_hash not in state
    assert token_hash.hex().encode() not in state


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_snapshotter_that_falls_behind_leaves_snapshots_out_and_holds_nothing_up(
    service: Service, open_service: OpenService
):
    state = {"created_on": str(NOON), "modified_on": str(NOON), "disabled": None, "erasure": None, "sessions": []}
    users = [User.from_state(uuid4(), EVERY, state) for _ in range(2 * WAITING)]
    considering = threading.Thread(target=lambda: [service.snapshotter.consider(user, since=0) for user in users])
    with service.recorder.appending():  # as long as this lasts, no snapshot can be written
        considering.start()
        considering.join(PATIENCE_S)
        assert not considering.is_alive()
    service.close()
    assert WAITING <= len(kept(open_service())) <= WAITING + 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_it_closes_though_the_database_takes_nothing(service: Service, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("store.snapshots.CLOSE_S", 0.1)
    state = {"created_on": str(NOON), "modified_on": str(NOON), "disabled": None, "erasure": None, "sessions": []}
    with service.recorder.appending():
        for _ in range(WAITING + 1):
            service.snapshotter.consider(User.from_state(uuid4(), EVERY, state), since=0)
        closing = threading.Thread(target=service.snapshotter.close)
        closing.start()
        closing.join(PATIENCE_S)
        assert not closing.is_alive()
