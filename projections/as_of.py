"""Which sessions a user had at a moment, and how each has ended since.

A fold of the log alone: no read model, snapshot or setting is asked, so none of them can change an answer. Whether a
session was active is judged by the rule of the `sessions` read model, and an end by time is told as it will be
recorded.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, bindparam, select

from domain.events import (
    Fact,
    Sealed,
    SessionCreated,
    SessionRevoked,
    SessionsInvalidatedBefore,
    SessionTouched,
    UserDisabled,
    UserEnabled,
)
from projections.session_views import SessionView, judge
from store.clock import from_micros, to_micros
from store.log import Record, last_position, position_at, recorded_at, stream_pages
from store.schema import events, is_invalidation
from store.sealing import SealingMapper

_INVALIDATIONS = (
    select(*(events.c[name] for name in Record._fields))
    .where(is_invalidation, events.c.position <= bindparam("until"))
    .order_by(events.c.position)
)


class NotYet(Exception):
    """A moment in the future, or a position beyond the end of the log."""


class Then(NamedTuple):
    """A place in the log and the moment at which it is looked at."""

    position: int
    moment: datetime


def at_moment(connection: Connection, moment: datetime, now: datetime) -> Then:
    """What had been recorded by a moment. Raises `NotYet`."""
    if moment > now:
        raise NotYet(f"{moment.isoformat()} has not come yet.")
    return Then(position_at(connection, to_micros(moment)), moment)


def at_position(connection: Connection, position: int) -> Then:
    """The moment at which an event was recorded. Raises `NotYet`."""
    end = last_position(connection)
    if not 0 < position <= end:
        raise NotYet(f"The log has no position {position}: it ends at {end}.")
    return Then(position, from_micros(recorded_at(connection, position)))


def sessions_as_of(
    connection: Connection, mapper: SealingMapper, stream: UUID, user_id: str, then: Then, now: datetime
) -> list[SessionView]:
    """The sessions that were active then, as they were; `end` says how each has ended by now. Newest activity first."""
    end_of_log = last_position(connection)
    invalidations = _invalidations(connection, mapper, end_of_log)
    fold = _Fold(user_id)
    for facts in _pages(connection, mapper, stream, fold, until=then.position):
        fold.take(facts)
        fold.forget_ended()
    earlier = [i for i in invalidations if i.position <= then.position]
    active = {view.session_id: view for view in fold.judged(earlier, then.moment) if view.end is None}
    fold.keep_only(active)
    for facts in _pages(connection, mapper, stream, fold, until=end_of_log):
        fold.take([fact for fact in facts if not isinstance(fact, SessionCreated)])
        if fold.is_over:
            break
    since = [active[v.session_id]._replace(end=v.end, ended_by=v.ended_by) for v in fold.judged(invalidations, now)]
    return sorted(since, key=lambda view: (view.last_active_at, view.created_version), reverse=True)


class _Invalidation(NamedTuple):
    position: int
    before: datetime
    at: int
    reason: str


def _invalidations(connection: Connection, mapper: SealingMapper, until: int) -> list[_Invalidation]:
    """Every time that everybody was signed out at once, in order. They lie in streams of their own."""
    records = [Record(*row) for row in connection.execute(_INVALIDATIONS, {"until": until})]
    facts = [(record.position, mapper.to_domain_event(record.stored)) for record in records]
    return [
        _Invalidation(position, fact.before, to_micros(fact.timestamp), fact.reason.value)
        for position, fact in facts
        if isinstance(fact, SessionsInvalidatedBefore)
    ]


def _pages(
    connection: Connection, mapper: SealingMapper, stream: UUID, fold: "_Fold", *, until: int
) -> Iterator[list[Any]]:
    """The facts of a stream that the fold has not taken yet."""
    for page in stream_pages(connection, stream, version=fold.version, until=until):
        yield [mapper.to_domain_event(record.stored) for record in page]


@dataclass(slots=True)
class _Session:
    created: SessionCreated
    last_active_at: datetime
    revoked: SessionRevoked | None = None


class _Fold:
    """A user and his sessions as the facts so far left them."""

    def __init__(self, user_id: str) -> None:
        self.version = 0
        self._user_id = user_id
        self._sessions: dict[UUID, _Session] = {}
        self._enabled = True
        self._disabled_version = 0
        self._disabled_at: int | None = None

    def take(self, facts: Sequence[Fact]) -> None:
        for fact in facts:
            self._take(fact)
            self.version = fact.originator_version

    def forget_ended(self) -> None:
        """So that memory holds what lives, whatever the history."""
        self._sessions = {id: session for id, session in self._sessions.items() if session.revoked is None}

    def keep_only(self, ids: Any) -> None:
        self._sessions = {id: session for id, session in self._sessions.items() if id in ids}

    @property
    def is_over(self) -> bool:
        return all(session.revoked for session in self._sessions.values())

    def judged(self, invalidations: Sequence[_Invalidation], now: datetime) -> list[SessionView]:
        return [judge(self._row(session, invalidations), now) for session in self._sessions.values()]

    def _take(self, fact: Fact) -> None:
        match fact:
            case SessionCreated():
                self._sessions[fact.session_id] = _Session(fact, fact.timestamp)
            case SessionTouched() if session := self._sessions.get(fact.session_id):
                session.last_active_at = fact.timestamp
            case SessionRevoked() if session := self._sessions.get(fact.session_id):
                session.revoked = fact
            case UserDisabled():
                self._enabled, self._disabled_version = False, fact.originator_version
                self._disabled_at = to_micros(fact.timestamp)
            case UserEnabled():
                self._enabled = True

    def _row(self, session: _Session, invalidations: Sequence[_Invalidation]) -> tuple[Any, ...]:
        """As the read model would show it to `judge`."""
        created, revoked = session.created, session.revoked
        invalidation = next((i for i in invalidations if created.timestamp < i.before), None)
        return (
            *(created.session_id, created.originator_id, self._user_id, created.originator_version, created.event_id),
            *(to_micros(created.timestamp), to_micros(session.last_active_at)),
            *(created.idle_timeout, created.absolute_timeout, created.remember_me, created.idp_name),
            *(created.auth_time and to_micros(created.auth_time), json.dumps(created.amr), created.device),
            created.client.ciphertext if isinstance(created.client, Sealed) else None,
            *((to_micros(revoked.ended_at), revoked.reason.value, revoked.actor) if revoked else (None, None, None)),
            *(self._enabled, self._disabled_version, self._disabled_at),
            *((invalidation.at, invalidation.reason) if invalidation else (None, None)),
        )
