"""D6: one clock a process, which steps of the wall clock do not move."""

from datetime import UTC, datetime, timedelta

import pytest

from api.ids import new_uuid7
from api.service import Service, Stores
from domain.session import Limits
from store.clock import Clock, ClockBehindLog, from_micros, to_micros
from tests.clock import ManualClock
from tests.store.given import Caller, result

SECOND = 1_000_000
START = to_micros(datetime(2026, 11, 23, 12, tzinfo=UTC))


class Machine:
    """A wall clock that is set, and a monotonic one that only runs; in microseconds."""

    def __init__(self) -> None:
        self.wall, self.monotonic = START, 7

    def run(self, micros: int) -> None:
        self.wall += micros
        self.monotonic += micros

    def clock(self, not_before: int = 0) -> Clock:
        return Clock(not_before, lambda: self.wall * 1000, lambda: self.monotonic * 1000)


def test_it_starts_at_the_wall_when_the_log_is_older():
    assert Machine().clock(not_before=START - 5).micros() == START


def test_it_starts_at_the_logs_end_when_the_wall_is_behind():
    assert Machine().clock(not_before=START + 5 * SECOND).micros() == START + 5 * SECOND


def test_it_runs_with_the_monotonic_clock():
    machine = Machine()
    clock = machine.clock()
    machine.run(3 * SECOND)
    assert clock.now() == from_micros(START + 3 * SECOND)


@pytest.mark.parametrize("step", [-3600 * SECOND, -1, 1, 86400 * SECOND])
def test_a_step_of_the_wall_changes_nothing_but_the_drift(step: int):
    machine = Machine()
    clock = machine.clock()
    machine.wall += step
    assert clock.micros() == START
    assert clock.drift_s() == step / SECOND


def test_the_drift_does_not_grow_while_both_run():
    machine = Machine()
    clock = machine.clock(not_before=START + 2 * SECOND)
    machine.run(100 * SECOND)
    assert clock.drift_s() == -2


def test_a_log_sixty_seconds_ahead_is_followed():
    assert Machine().clock(not_before=START + 60 * SECOND).micros() == START + 60 * SECOND


def test_a_log_more_than_sixty_seconds_ahead_is_refused():
    with pytest.raises(ClockBehindLog, match="61 s ahead"):
        Machine().clock(not_before=START + 61 * SECOND)
    with pytest.raises(ClockBehindLog):
        Machine().clock(not_before=START + 60 * SECOND + 1)


def test_the_machines_own_clocks_are_used_by_default():
    before = datetime.now(UTC)
    clock = Clock()
    assert before <= clock.now() + timedelta(milliseconds=1)
    assert clock.micros() <= clock.micros()
    assert abs(clock.drift_s()) < 1


def test_micros_and_moments_convert_without_loss():
    for micros in (0, 1, START, START + 999_999, -1, 4_102_444_800_000_000 + 123_457):
        assert to_micros(from_micros(micros)) == micros


def test_a_service_starts_no_earlier_than_its_log_ended(stores: Stores):
    ahead = ManualClock(datetime.now(UTC) + timedelta(seconds=30))
    with_log_ahead = Service(stores, Limits(), new_uuid7, ahead)
    result(Caller(with_log_ahead).creates())
    with_log_ahead.close()

    service = Service(stores, Limits(), new_uuid7)
    assert service.clock.micros() >= ahead.micros()
    service.close()


def test_a_service_whose_log_is_far_ahead_does_not_start(stores: Stores):
    ahead = ManualClock(datetime.now(UTC) + timedelta(hours=1))
    with_log_ahead = Service(stores, Limits(), new_uuid7, ahead)
    result(Caller(with_log_ahead).creates())
    with_log_ahead.close()

    with pytest.raises(ClockBehindLog):
        Service(stores, Limits(), new_uuid7)
