"""A session inside a user: how long it may live, when it ends, and why."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import NamedTuple
from uuid import UUID

from domain.events import EndReason


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds a session may be idle, and may live at all (NIST SP 800-63B-4 §5.2: activity resets only the first)."""

    idle: int
    absolute: int


shared_timeouts = cache(Timeouts)
"""One object for the very many sessions that have the same."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the operator allows. `touch_interval`: seconds within which a further use records nothing."""

    normal: Timeouts = Timeouts(idle=30 * 60, absolute=12 * 3600)
    remembered: Timeouts = Timeouts(idle=14 * 86400, absolute=30 * 86400)
    touch_interval: int = 60
    max_sessions: int = 50

    def timeouts(self, *, remember_me: bool) -> Timeouts:
        return self.remembered if remember_me else self.normal

    def touch_interval_of(self, timeouts: Timeouts) -> int:
        """At most a quarter of the idle limit, also of one that was frozen under other settings (D4)."""
        return min(self.touch_interval, timeouts.idle // 4)


class End(NamedTuple):
    """When a session ended or will end, and why."""

    at: datetime
    reason: EndReason


class Invalidation(NamedTuple):
    """A `SessionsInvalidatedBefore` fact, recorded at `at`: sessions created before `before` are not valid since."""

    before: datetime
    at: datetime
    reason: EndReason
    event_id: UUID
    correlation_id: UUID


@dataclass(slots=True)
class Session:
    """A signed-in session that has not been recorded as ended. `deadline`: when time alone ends it, and why."""

    session_id: UUID
    created_version: int
    created_at: datetime
    last_active_at: datetime
    timeouts: Timeouts
    deadline: End = field(init=False)

    def __post_init__(self) -> None:
        self.use(self.last_active_at)

    def use(self, at: datetime) -> None:
        self.last_active_at = at
        self.deadline = deadline(self.created_at, at, self.timeouts)

    def is_live(self, now: datetime) -> bool:
        return now < self.deadline.at

    def invalidation(self, invalidations: Sequence[Invalidation]) -> Invalidation | None:
        """Which of these ended this session: the first one that fits, unless time had ended it before."""
        first = next((i for i in invalidations if self.created_at < i.before), None)
        return first if first and first.at < self.deadline.at else None


def deadline(created_at: datetime, last_active_at: datetime, timeouts: Timeouts) -> End:
    """The earlier of the idle and the absolute limit; active means strictly before it (SES-08)."""
    idle = last_active_at + timedelta(seconds=timeouts.idle)
    absolute = created_at + timedelta(seconds=timeouts.absolute)
    if idle < absolute:
        return End(idle, EndReason.INACTIVITY_TIMEOUT)
    return End(absolute, EndReason.ABSOLUTE_TIMEOUT)
