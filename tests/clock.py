"""A clock that a test moves."""

from datetime import UTC, datetime

from store.clock import Clock, to_micros

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class ManualClock(Clock):
    """Stands still until it is told to move, in seconds."""

    def __init__(self, start: datetime = NOON) -> None:
        self._now = to_micros(start)
        self.drift = 0.0

    def micros(self) -> int:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += round(seconds * 1_000_000)

    def drift_s(self) -> float:
        return self.drift
