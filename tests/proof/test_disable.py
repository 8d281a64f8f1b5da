"""D3 and D5 together: what a disable cut off stays cut off, though the policy slept through disable and enable."""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import TypeVar

import pytest

from domain.events import EndReason, Fact, SessionRevoked, UserDisabled
from domain.user import DISABLED
from tests.api.client import ADMIN, Api, Headers, SignedIn, told
from tests.api.conftest import OpenApi
from tests.clock import ManualClock
from tests.proof.history import History
from tests.proof.watch import Watch
from tests.store.given import facts, until

F = TypeVar("F", bound=Fact)


@pytest.fixture
def api(open_api: OpenApi) -> Api:
    """An application whose follower does nothing, ever."""
    api = open_api()
    api.service.follower.close()
    return api


@pytest.fixture
def history() -> History:
    return History()


@pytest.fixture
def watch(api: Api, history: History) -> Iterator[Watch]:
    """Presents the credentials that it is given to the application, all the time."""

    def ask(process: str, headers: Headers) -> bool:
        return api.is_active(headers)

    with Watch(history, lambda: ask, ["the only one"]).by_threads(2) as watch:
        yield watch


def test_while_the_follower_is_stopped_enabling_revives_nothing_and_later_each_end_is_recorded_once(
    open_api: OpenApi, api: Api, watch: Watch, history: History, clock: ManualClock
):
    old = [api.sign_in(remember_me=remember) for remember in (False, True, False)]
    present(watch, *old, api.sign_in("bob"))

    disabled_at = advanced(clock)
    history.asks_to_end(session.id for session in old)
    administer(api, "disable")
    history.ended((session.id for session in old), at=time.monotonic())
    present(watch)
    assert told(api.begin({"user_id": "alice"})) == (403, "user-disabled")

    advanced(clock)
    administer(api, "enable")
    present(watch)

    new = api.sign_in()
    present(watch, new)

    advanced(clock)
    follower = open_api().service.follower
    until(lambda: follower.is_leading and follower.progress()[0].lag_events == 0)
    present(watch)
    assert history.contradictions() == []
    assert history.never_let_in() == set()
    assert len(history.after_the_end()) > 4 * 3 * len(old)
    assert api.ids(new.bearer) == [new.id]
    ends, [disable] = told_of(api, SessionRevoked), told_of(api, UserDisabled)
    assert sorted(str(end.session_id) for end in ends) == sorted(session.id for session in old)
    assert {(e.reason, e.actor, e.ended_at, e.causation_id) for e in ends} == {
        (EndReason.USER_DISABLED, DISABLED, disabled_at, disable.event_id)
    }


def present(watch: Watch, *more: SignedIn) -> None:
    """Go on when each credential, these from now on among them, has been presented again."""
    for session in more:
        watch.add(session.id, session.ways_in)
    watch.await_each()


def administer(api: Api, what: str) -> None:
    assert api.post(f"/api/users/alice/{what}", ADMIN).status_code == 200


def advanced(clock: ManualClock) -> datetime:
    clock.advance(1)
    return clock.now()


def told_of(api: Api, kind: type[F]) -> list[F]:
    return [fact for fact in facts(api.service) if isinstance(fact, kind)]
