import hashlib
import logging
import threading
from concurrent.futures import Future
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from domain.errors import LedgerBusy
from domain.events import EndReason, SessionCreated, SessionRevoked
from domain.ledger import Claim, Recorded
from domain.policies import EndSessionsOnTimeout
from domain.session import Limits
from domain.user import EXPIRY, SignIn
from projections import sweeper as sweeping
from projections.sweeper import Sweeper
from store.audit_access import record_access
from store.clock import to_micros
from store.schema import idempotency
from tests.clock import NOON, ManualClock
from tests.conftest import OpenService
from tests.projections.conftest import Drive
from tests.projections.driver import Driver, request, until
from tests.store.given import accesses

IDLE = Limits().normal.idle
A_MOMENT = 1e-6
DAY = 24 * 3600


def test_sessions_of_users_whom_nobody_touches_end_at_their_deadline(driver: Driver, clock: ManualClock):
    sessions = {driver.sign_in("alice"), driver.sign_in("alice"), driver.sign_in("bob")}
    clock.advance(DAY)
    assert driver.service.sweeper.sweep() == 3
    ended = driver.facts(SessionRevoked)
    deadline = to_micros(NOON) + IDLE * 1_000_000
    assert {fact.session_id for fact in ended} == sessions
    assert {(to_micros(f.ended_at), f.reason, f.actor, f.causation_id) for f in ended} == {
        (deadline, EndReason.INACTIVITY_TIMEOUT, EXPIRY, None)
    }
    assert {fact.timestamp for fact in ended} == {clock.now()}
    assert len({fact.correlation_id for fact in ended}) == 1


def test_a_sweep_leaves_alone_what_time_has_not_ended(driver: Driver, clock: ManualClock):
    idle, remembered = driver.sign_in(), driver.sign_in(remember_me=True)
    clock.advance(IDLE - A_MOMENT)
    assert driver.service.sweeper.sweep() == 0
    clock.advance(A_MOMENT)
    assert driver.service.sweeper.sweep() == 1
    assert driver.service.sweeper.sweep() == 0
    assert [fact.session_id for fact in driver.facts(SessionRevoked)] == [idle]
    assert driver.active() == [remembered]


def test_looks_at_the_audit_log_are_kept_for_a_year_and_some_weeks(driver: Driver, clock: ManualClock):
    with driver.service.database.transaction() as connection:
        record_access(connection, "key:a", "x", clock.micros())
    left = []
    for days in (0, 366, 33, 2):
        clock.advance(days * DAY)
        driver.service.sweeper.sweep()
        with driver.service.database.reading() as connection:
            left.append(len(accesses(connection)))
    assert left == [1, 1, 1, 0]


def test_a_disabled_users_sessions_are_not_taken_for_timeouts(driver: Driver, clock: ManualClock):
    session_id = driver.sign_in("alice")
    driver.sign_in("bob")
    driver.disable("alice")
    clock.advance(DAY)
    assert driver.service.sweeper.sweep() == 1
    driver.enable("alice")
    view = driver.view(session_id)
    assert view.end == (NOON, EndReason.USER_DISABLED)
    assert [f.reason for f in driver.facts(SessionRevoked) if f.session_id == session_id] == [EndReason.USER_DISABLED]


@pytest.mark.parametrize("page", [1, 3, 7])
def test_a_sweep_goes_on_to_its_last_page(
    driver: Driver, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, page: int
):
    monkeypatch.setattr(sweeping, "PAGE", page)
    for number in range(7):
        driver.sign_in(f"user {number}")
        driver.sign_in(f"user {number}")
    clock.advance(IDLE)
    assert driver.service.sweeper.sweep() == 14
    assert len(driver.facts(SessionRevoked)) == 14


def test_two_services_that_sweep_at_once_end_each_session_once(
    open_service: OpenService, drive: Drive, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sweeping, "PAGE", 5)
    first, second = drive(open_service()), drive(open_service())
    for number in range(40):
        (first if number % 2 else second).sign_in(f"user {number}")
    clock.advance(IDLE)
    both = threading.Barrier(2)
    counts: list[int] = []

    def sweep(driver: Driver) -> None:
        both.wait(20)
        counts.append(driver.service.sweeper.sweep())

    threads = [threading.Thread(target=sweep, args=(driver,)) for driver in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended = [fact.session_id for fact in first.facts(SessionRevoked)]
    assert sum(counts) == len(ended) == 40
    assert set(ended) == {fact.session_id for fact in first.facts(SessionCreated)}


def test_kept_answers_are_forgotten_after_a_day(driver: Driver, clock: ManualClock):
    keep_an_answer(driver, "old")
    clock.advance(A_MOMENT)
    keep_an_answer(driver, "new")
    clock.advance(DAY - 2 * A_MOMENT)
    driver.service.sweeper.sweep()
    assert kept(driver) == {"old", "new"}
    clock.advance(A_MOMENT)
    driver.service.sweeper.sweep()
    assert kept(driver) == {"new"}


def keep_an_answer(driver: Driver, key: str) -> None:
    session_id = uuid4()
    sign_in = SignIn(session_id, hashlib.sha256(session_id.bytes).digest(), "curl")
    claim = Claim(key.encode(), b"fingerprint", lambda session: b"answer")
    driver.ledger.create_session("alice", sign_in, request(), claim).result()


def kept(driver: Driver) -> set[str]:
    with driver.service.database.reading() as connection:
        return {key.decode() for key in connection.execute(select(idempotency.c.key)).scalars()}


# -- as a thread


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweepers sweep all the time."""
    monkeypatch.setattr(sweeping, "INTERVAL_S", 0.005)


@pytest.mark.usefixtures("often")
def test_a_service_that_leads_sweeps_by_itself(driver: Driver, clock: ManualClock):
    driver.service.start()
    driver.sign_in()
    clock.advance(IDLE)
    until(lambda: driver.facts(SessionRevoked))


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("drift", [60.1, -60.1], ids=["wall ahead", "wall behind"])
def test_nothing_is_swept_while_wall_and_clock_disagree(
    driver: Driver, clock: ManualClock, caplog: pytest.LogCaptureFixture, drift: float
):
    driver.sign_in()
    clock.advance(IDLE)
    clock.drift = drift
    driver.service.start()
    until(lambda: caplog.messages.count("wall and clock disagree, so nothing is swept") > 3)
    assert {r.levelno for r in caplog.records if r.name == "ledger.sweeper"} == {logging.ERROR}
    assert driver.facts(SessionRevoked) == []
    clock.drift = 60.0 if drift > 0 else -60.0
    until(lambda: driver.facts(SessionRevoked))


@pytest.mark.usefixtures("often")
def test_a_sweep_that_fails_is_tried_again(
    driver: Driver, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    failures = iter([LedgerBusy("full"), RuntimeError("no"), OSError("no")])
    sweep = driver.service.sweeper.sweep

    def failing_at_first() -> int:
        if error := next(failures, None):
            raise error
        return sweep()

    monkeypatch.setattr(driver.service.sweeper, "sweep", failing_at_first)
    driver.sign_in()
    clock.advance(IDLE)
    driver.service.start()
    until(lambda: driver.facts(SessionRevoked))
    assert caplog.messages.count("sweeping failed, trying again later") == 3


@pytest.mark.usefixtures("often")
def test_who_does_not_lead_does_not_sweep(open_service: OpenService, drive: Drive, monkeypatch: pytest.MonkeyPatch):
    leader, other = drive(open_service()), drive(open_service())
    swept: list[Driver] = []
    for driver in (leader, other):
        monkeypatch.setattr(driver.service.sweeper, "sweep", lambda driver=driver: swept.append(driver))
    leader.service.start()
    until(lambda: leader.service.follower.is_leading)
    other.service.start()
    until(lambda: len(swept) > 10)
    assert other not in swept


class RefusesOne(EndSessionsOnTimeout):
    """A rule whose command about one user cannot be recorded."""

    refused: UUID

    def end(self, streams: list[UUID], correlation_id: UUID) -> "dict[UUID, Future[Recorded[int]]]":
        ending = super().end([stream for stream in streams if stream != self.refused], correlation_id)
        failing: Future[Recorded[int]] = Future()
        failing.set_exception(RuntimeError("no"))
        return {stream: ending.get(stream, failing) for stream in streams}


def test_a_user_who_cannot_be_swept_holds_up_nobody_else(
    driver: Driver, clock: ManualClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sweeping, "PAGE", 1)
    for user_id in ("alice", "bob", "carol"):
        driver.sign_in(user_id)
    clock.advance(DAY)
    rule = RefusesOne(driver.ledger)
    rule.refused = sorted(driver.stream(user_id) for user_id in ("alice", "bob", "carol"))[0]
    service = driver.service
    assert Sweeper(service.database, rule, service.follower, clock, uuid4).sweep() == 2
    [error] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert error.fields["stream"] == rule.refused
