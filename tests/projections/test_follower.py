import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any
from uuid import UUID

import pytest
from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import StoredEvent

from domain.errors import LedgerBusy, StoreUnavailable
from domain.events import EndReason, SessionCreated, SessionRevoked, SessionTouched, UserDisabled, UserEnrolled
from domain.user import DISABLED
from projections import follower as following
from projections import places
from projections.follower import Progress
from projections.places import TRIES
from store.recorder import EventRecorder
from tests.clock import ManualClock
from tests.conftest import OpenService
from tests.postgres import Database, PostgresCluster
from tests.projections.conftest import Drive, Follow
from tests.projections.driver import Driver, has_caught_up, insert_as_owner, progress_of, set_tracked, until
from tests.projections.other_process import OtherProcess

NAME = DISABLED.removeprefix("policy:")


class Answering:
    """A policy that does what `answer` does, and keeps what it was asked and when."""

    def __init__(
        self,
        name: str = "answering",
        topics: tuple[str, ...] = (SessionCreated.TOPIC,),
        answer: Callable[[Any], None] = lambda fact: None,
    ) -> None:
        self.name = name
        self.topics = topics
        self.asked: list[Any] = []
        self.asked_at: list[float] = []
        self._answer = answer

    def handle(self, fact: DomainEventProtocol[UUID]) -> "Future[Any]":
        self.asked_at.append(time.monotonic())
        self.asked.append(fact)
        future: Future[Any] = Future()
        try:
            self._answer(fact)
            future.set_result(None)
        except Exception as error:
            future.set_exception(error)
        return future


def failing(error: Exception, *, times: int | None = None) -> Callable[[Any], None]:
    """An answer that fails for ever, or so often."""
    left = itertools.repeat(True) if times is None else iter([True] * times)

    def answer(fact: Any) -> None:
        if next(left, False):
            raise error

    return answer


# -- the policy


def test_a_policy_answers_what_happened_while_it_was_stopped(driver: Driver):
    sessions = [driver.sign_in(), driver.sign_in()]
    driver.disable()
    driver.service.start()
    until(lambda: has_caught_up(driver))
    [disabled] = driver.facts(UserDisabled)
    ended = driver.facts(SessionRevoked)
    assert [fact.session_id for fact in ended] == sessions
    assert {(f.reason, f.ended_at, f.actor, f.causation_id, f.correlation_id) for f in ended} == {
        (EndReason.USER_DISABLED, disabled.timestamp, DISABLED, disabled.event_id, disabled.correlation_id)
    }


def test_a_policy_answers_at_once_what_happens_while_it_follows(driver: Driver, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(following, "IDLE_S", 3600.0)
    driver.service.start()
    until(lambda: has_caught_up(driver))
    driver.sign_in()
    driver.disable()
    until(lambda: driver.facts(SessionRevoked))


def test_nobody_elses_sessions_end(driver: Driver):
    driver.sign_in("alice")
    bobs = driver.sign_in("bob")
    driver.disable("alice")
    driver.service.start()
    until(lambda: has_caught_up(driver))
    assert bobs not in [fact.session_id for fact in driver.facts(SessionRevoked)]
    assert driver.active("bob") == [bobs]


def test_a_policy_stopped_throughout_lets_no_old_session_in_and_ends_each_once(driver: Driver):
    old = [driver.sign_in(), driver.sign_in()]
    driver.disable()
    accepted = [driver.is_accepted(session_id) for session_id in old]
    driver.enable()
    accepted += [driver.is_accepted(session_id) for session_id in old]
    new = driver.sign_in()
    accepted += [driver.is_accepted(session_id) for session_id in old]
    driver.service.start()
    until(lambda: has_caught_up(driver))
    [disabled] = driver.facts(UserDisabled)
    ended = [(fact.session_id, fact.reason, fact.causation_id) for fact in driver.facts(SessionRevoked)]
    assert not any(accepted)
    assert ended == [(session_id, EndReason.USER_DISABLED, disabled.event_id) for session_id in old]
    assert driver.active() == [new]


def test_a_policy_that_comes_late_does_not_take_a_second_disable_for_the_first(driver: Driver):
    first = driver.sign_in()
    driver.disable()
    driver.enable()
    second = driver.sign_in()
    driver.disable()
    driver.service.start()
    until(lambda: has_caught_up(driver))
    causes = [fact.event_id for fact in driver.facts(UserDisabled)]
    ended = [(fact.session_id, fact.causation_id) for fact in driver.facts(SessionRevoked)]
    assert ended == [(first, causes[0]), (second, causes[1])]


# -- positions


def test_ignored_events_advance_the_position(driver: Driver):
    driver.service.start()
    driver.sign_in()
    until(lambda: has_caught_up(driver))
    until(lambda: driver.tracked(NAME) == driver.head() == 2)


def test_a_log_longer_than_a_batch_is_followed_to_its_end(
    driver: Driver, follow: Follow, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(places, "BATCH_SIZE", 3)
    sessions = [driver.sign_in() for _ in range(10)]
    policy = Answering()
    follower = follow(policy)
    until(lambda: has_caught_up(driver, follower, policy.name))
    assert [fact.session_id for fact in policy.asked] == sessions


def test_a_restart_resumes_where_the_policy_was(driver: Driver, follow: Follow):
    driver.sign_in()
    before, after = Answering(), Answering()
    follower = follow(before)
    until(lambda: has_caught_up(driver, follower, before.name))
    follower.close()
    late = driver.sign_in()
    follower = follow(after)
    until(lambda: has_caught_up(driver, follower, after.name))
    assert len(before.asked) == 1
    assert [fact.session_id for fact in after.asked] == [late]


def test_an_event_that_comes_again_has_no_second_effect(open_service: OpenService, drive: Drive):
    driver = drive(open_service())
    driver.sign_in()
    driver.disable()
    driver.service.start()
    until(lambda: has_caught_up(driver) and driver.tracked(NAME) == driver.head())
    driver.service.close()
    again = drive(open_service())
    log = again.head()
    set_tracked(again, NAME, 0)
    again.service.start()
    until(lambda: has_caught_up(again))
    assert again.head() == log
    assert len(again.facts(SessionRevoked)) == 1


# -- failures


def test_a_policy_that_fails_is_asked_again_later_and_later_then_parked_loudly(
    driver: Driver, follow: Follow, caplog: pytest.LogCaptureFixture
):
    driver.sign_in()
    policy = Answering("failing", answer=failing(RuntimeError("no")))
    follower = follow(policy)
    until(lambda: progress_of(follower, "failing").parked)
    pauses = [later - earlier for earlier, later in itertools.pairwise(policy.asked_at)]
    [loud] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(policy.asked) == TRIES
    assert all(pause >= places.FIRST_PAUSE_S * 2**tries for tries, pause in enumerate(pauses))
    assert (loud.name, loud.fields["policy"], loud.fields["after_position"]) == ("ledger.follower", "failing", 0)
    assert "RuntimeError('no')" in loud.fields["error"]


def test_what_happens_meanwhile_shortens_no_pause(
    driver: Driver, follow: Follow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(places, "FIRST_PAUSE_S", 3600.0)
    monkeypatch.setattr(places, "LAST_PAUSE_S", 3600.0)
    driver.sign_in()
    other = Answering("other")
    follower = follow(Answering("failing", answer=failing(RuntimeError("no"))), other)
    for _ in range(TRIES):
        driver.sign_in()
        until(lambda: has_caught_up(driver, follower, "other"))
    assert caplog.messages == ["a policy failed, trying again"]


def test_a_parked_policy_stops_only_itself_and_says_so(driver: Driver, follow: Follow, clock: ManualClock):
    driver.sign_in()
    parked, other = Answering("parked", answer=failing(RuntimeError("no"))), Answering("other")
    follower = follow(parked, other)
    until(lambda: progress_of(follower, "parked").parked)
    driver.sign_in()
    clock.advance(7)
    until(lambda: has_caught_up(driver, follower, "other"))
    stuck, moving = progress_of(follower, "parked"), progress_of(follower, "other")
    assert (stuck.position, stuck.lag_events, stuck.lag_seconds) == (0, 3, 7.0)
    assert "RuntimeError('no')" in (stuck.parked or "")
    assert (moving.position, moving.lag_events, moving.lag_seconds, moving.parked) == (3, 0, 0.0, None)
    assert (len(parked.asked), len(other.asked)) == (TRIES, 2)


def test_a_restart_tries_a_parked_policy_again(driver: Driver, follow: Follow):
    driver.sign_in()
    parked, repaired = Answering(answer=failing(RuntimeError("no"))), Answering()
    follower = follow(parked)
    until(lambda: progress_of(follower, parked.name).parked)
    follower.close()
    follower = follow(repaired)
    until(lambda: has_caught_up(driver, follower, repaired.name))
    assert [fact.session_id for fact in repaired.asked] == [fact.session_id for fact in driver.facts(SessionCreated)]


def test_a_policy_that_recovers_skips_nothing(driver: Driver, follow: Follow):
    sessions = [driver.sign_in(), driver.sign_in()]
    policy = Answering(answer=failing(RuntimeError("no"), times=TRIES - 1))
    follower = follow(policy)
    until(lambda: has_caught_up(driver, follower, policy.name))
    assert [fact.session_id for fact in policy.asked[-2:]] == sessions
    assert progress_of(follower, policy.name).parked is None


@pytest.mark.parametrize("error", [StoreUnavailable("down"), LedgerBusy("full")], ids=["down", "busy"])
def test_a_store_that_is_away_for_long_parks_no_policy(driver: Driver, follow: Follow, error: Exception):
    driver.sign_in()
    policy = Answering(answer=failing(error, times=3 * TRIES))
    follower = follow(policy)
    until(lambda: has_caught_up(driver, follower, policy.name))
    assert len(policy.asked) == 3 * TRIES + 1
    assert progress_of(follower, policy.name).parked is None


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_database_that_crashes_and_returns_finds_its_follower_waiting(
    driver: Driver, postgres_cluster: PostgresCluster, caplog: pytest.LogCaptureFixture
):
    driver.sign_in()
    driver.service.start()
    until(lambda: has_caught_up(driver))
    postgres_cluster.stop(mode="immediate")
    until(lambda: not driver.service.follower.is_leading)
    postgres_cluster.start()
    until(lambda: has_caught_up(driver))
    driver.disable()
    until(lambda: driver.facts(SessionRevoked))
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_failure_after_a_long_outage_gets_as_many_tries_as_any_other(driver: Driver, follow: Follow):
    driver.sign_in()
    errors: Iterator[Exception] = iter([StoreUnavailable("down")] * 2 * TRIES + [RuntimeError("no")] * (TRIES - 1))

    def answer(fact: Any) -> None:
        if error := next(errors, None):
            raise error

    policy = Answering(answer=answer)
    follower = follow(policy)
    until(lambda: has_caught_up(driver, follower, policy.name))
    assert progress_of(follower, policy.name).parked is None


def test_a_follower_outlives_whatever_goes_wrong_around_its_policies(
    driver: Driver, follow: Follow, monkeypatch: pytest.MonkeyPatch
):
    select, failures = EventRecorder.select_notifications, iter([OSError("too many open files")] * 3)

    def failing_at_first(*args: Any, **options: Any) -> Any:
        if error := next(failures, None):
            raise error
        return select(*args, **options)

    driver.sign_in()
    policy = Answering()
    monkeypatch.setattr(EventRecorder, "select_notifications", failing_at_first)
    follower = follow(policy)
    until(lambda: has_caught_up(driver, follower, policy.name))
    assert len(policy.asked) == 1


def test_an_event_that_nobody_can_read_parks_who_must_answer_it_and_is_not_skipped(
    driver: Driver, follow: Follow, database: Database, caplog: pytest.LogCaptureFixture
):
    first = driver.sign_in()
    insert_as_owner(
        driver.service, database, StoredEvent(driver.stream("mallory"), 1, UserDisabled.TOPIC, b"\x00garbage")
    )
    answering = Answering("answering", topics=(UserDisabled.TOPIC,))
    ignoring = Answering("ignoring", topics=(SessionCreated.TOPIC,))
    follower = follow(answering, ignoring)
    until(lambda: progress_of(follower, "answering").parked)
    until(lambda: has_caught_up(driver, follower, "ignoring"))
    stuck = progress_of(follower, "answering")
    assert (stuck.position, stuck.lag_events) == (0, 3)
    assert "at position 3" in (stuck.parked or "")
    assert "Cannot read the stored state of UserDisabled" in (stuck.parked or "")
    assert [record.fields["policy"] for record in caplog.records if record.levelno == logging.ERROR] == ["answering"]
    assert answering.asked == []
    assert [fact.session_id for fact in ignoring.asked] == [first]


# -- one leader


def test_one_of_two_services_leads_and_the_other_takes_over_when_it_closes(open_service: OpenService, drive: Drive):
    first, second = drive(open_service()), drive(open_service())
    first.service.start()
    until(lambda: first.service.follower.is_leading)
    second.service.start()
    first.sign_in()
    first.disable()
    until(lambda: has_caught_up(first))
    assert not second.service.follower.is_leading
    first.service.close()
    until(lambda: second.service.follower.is_leading)
    second.enable()
    second.sign_in()
    second.disable()
    until(lambda: has_caught_up(second))
    assert len(second.facts(SessionRevoked)) == 2


def test_who_does_not_lead_answers_nothing_and_knows_how_far_the_leader_is(open_service: OpenService, drive: Drive):
    first, second = drive(open_service()), drive(open_service())
    first.service.start()
    until(lambda: first.service.follower.is_leading)
    second.service.start()
    second.sign_in()
    until(lambda: progress_of(second.service.follower).position == second.head())
    assert first.service.follower.is_leading
    assert not second.service.follower.is_leading


def test_another_process_takes_over_when_the_one_that_leads_is_killed(driver: Driver, other_process: OtherProcess):
    other_process.ask("lead")
    driver.service.start()
    driver.sign_in()
    driver.disable()
    until(lambda: len(driver.facts(SessionRevoked)) == 1)
    led_by_the_other = not driver.service.follower.is_leading
    other_process.kill()
    driver.sign_in("bob")
    driver.disable("bob")
    until(lambda: has_caught_up(driver))
    assert led_by_the_other
    assert len(driver.facts(SessionRevoked)) == 2


def test_a_leader_whose_row_was_moved_by_another_stops_without_writing(
    driver: Driver, follow: Follow, caplog: pytest.LogCaptureFixture
):
    may_end = threading.Event()
    policy = Answering(answer=lambda fact: may_end.wait(20))
    driver.sign_in()
    follower = follow(policy)
    until(lambda: policy.asked)
    driver.sign_in()
    set_tracked(driver, policy.name, driver.head())
    may_end.set()
    until(lambda: "another process follows the log" in caplog.messages)
    assert driver.tracked(policy.name) == driver.head()
    until(lambda: has_caught_up(driver, follower, policy.name))
    assert len(policy.asked) == 1


# -- progress


def test_progress_counts_what_is_behind_and_how_old_it_is(driver: Driver, clock: ManualClock):
    assert driver.service.follower.progress()[0] == Progress(NAME, 0, 0, 0.0, 0.0, None)
    driver.sign_in()
    clock.advance(7)
    driver.sign_in()
    clock.advance(5)
    assert driver.service.follower.progress()[0] == Progress(NAME, 0, 3, 12.0, 0.0, None)
    driver.service.start()
    until(lambda: has_caught_up(driver))
    caught_up = progress_of(driver.service.follower)
    assert (caught_up.position, caught_up.lag_events, caught_up.lag_seconds) == (3, 0, 0.0)
    assert caught_up.rate > 0


def test_the_age_is_that_of_the_oldest_event_not_yet_seen(driver: Driver, follow: Follow, clock: ManualClock):
    policy = Answering(topics=(SessionTouched.TOPIC,), answer=failing(RuntimeError("no")))
    session_id = driver.sign_in()
    follower = follow(policy)
    until(lambda: has_caught_up(driver, follower, policy.name))
    clock.advance(90)
    driver.touch(session_id)
    clock.advance(4)
    driver.sign_in()
    clock.advance(1)
    until(lambda: progress_of(follower, policy.name).parked)
    stuck = progress_of(follower, policy.name)
    assert (stuck.position, stuck.lag_events, stuck.lag_seconds) == (2, 2, 5.0)


def test_a_policy_is_asked_only_for_its_topics(driver: Driver, follow: Follow):
    driver.sign_in()
    policy = Answering(topics=(UserEnrolled.TOPIC,))
    follower = follow(policy)
    until(lambda: has_caught_up(driver, follower, policy.name))
    assert [type(fact) for fact in policy.asked] == [type(driver.facts(UserEnrolled)[0])]
