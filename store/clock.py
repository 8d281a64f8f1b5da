"""One clock a process: it starts at the later of the wall and the log, and then follows the monotonic clock."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_DRIFT_S = 60


class ClockBehindLog(Exception):
    """The log is further ahead of the wall clock than a clock may drift: starting would stop time."""


def steady_ns() -> int:
    """Never steps, and goes on while the machine sleeps where the system has a clock that does."""
    return time.clock_gettime_ns(_STEADY)


_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """Steps of the wall clock change nothing here. `not_before` is the log's last `recorded_at`, in microseconds."""

    def __init__(
        self,
        not_before: int = 0,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = steady_ns,
    ) -> None:
        self._wall_ns, self._monotonic_ns = wall_ns, monotonic_ns
        wall = wall_ns() // 1000
        if not_before - wall > MAX_DRIFT_S * 1_000_000:
            raise ClockBehindLog(
                f"The log's last event is {(not_before - wall) / 1e6:.0f} s ahead of this machine's clock "
                f"(allowed: {MAX_DRIFT_S} s). Set the clock right, then start again."
            )
        self._offset = max(wall, not_before) - monotonic_ns() // 1000

    def micros(self) -> int:
        """Microseconds since 1970."""
        return self._offset + self._monotonic_ns() // 1000

    def now(self) -> datetime:
        return EPOCH + timedelta(microseconds=self.micros())

    def drift_s(self) -> float:
        """Seconds by which the wall is ahead of this clock; beyond ± `MAX_DRIFT_S` one of them is not to be trusted."""
        return (self._wall_ns() // 1000 - self.micros()) / 1e6


def to_micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    return EPOCH + timedelta(microseconds=micros)
