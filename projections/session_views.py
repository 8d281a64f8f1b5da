"""What the `sessions` read model answers: sessions as they stand at the moment of the question.

Whether a session is active is judged at every read, by the same rule that the domain decides with; the row alone never
says so.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import cache, lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Connection,
    Table,
    and_,
    bindparam,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
    true,
)

from domain.events import EndReason
from domain.session import End, Invalidation, Timeouts, deadline, shared_timeouts
from domain.user import DISABLED, EXPIRY, INVALIDATED
from projections.sessions import SessionsProjection
from store.clock import Clock, from_micros, to_micros
from store.grouping import GroupedLookup
from store.reads import Query, Reads, padded
from store.schema import identities


class SessionView(NamedTuple):
    """A session as a reader sees it at one moment. `end` is judged then; None means active."""

    session_id: UUID
    stream: UUID
    user_id: str
    created_version: int
    created_event: UUID
    created_at: datetime
    last_active_at: datetime
    timeouts: Timeouts
    expires_at: datetime
    remember_me: bool
    idp_name: str | None
    auth_time: datetime | None
    amr: tuple[str, ...]
    device: str
    client: bytes | None
    end: End | None
    ended_by: str | None


_live = SessionsProjection()
_s, _u = _live.sessions.c, _live.users.c
_i = _live.invalidations.c
_earlier = _live.invalidations.alias("earlier").c
_first_that_fits = select(func.min(_earlier.position)).where(_earlier.created_before > _s.created_at).scalar_subquery()
_joined = (
    _live.sessions.join(_live.users, _s.stream == _u.stream)
    .join(identities, _s.stream == identities.c.stream)
    .outerjoin(_live.invalidations, _i.position == _first_that_fits)
)
_columns = (
    *(_s.session_id, _s.stream, identities.c.user_id, _s.created_version, _s.created_event, _s.created_at),
    *(_s.last_active_at, _s.idle_timeout, _s.absolute_timeout),
    *(_s.remember_me, _s.idp_name, _s.auth_time, _s.amr, _s.device, _s.client, _s.ended_at, _s.end_reason, _s.ended_by),
    *(_u.enabled, _u.disabled_version, _u.disabled_at, _i.invalidated_at, _i.reason),
)
_view = select(*_columns).select_from(_joined)


def judge(row: Sequence[Any], now: datetime) -> SessionView:
    """Read a row of `_view` as it stands at `now`: D3's rule, the same that the domain decides with."""
    (session_id, stream, user_id, created_version, created_event, created_us, last_active_us, idle, absolute,
     remember_me, idp_name, auth_time, amr, device, client, ended_at, end_reason, ended_by,
     enabled, disabled_version, disabled_at, invalidated_us, invalidated_reason) = row  # fmt: skip
    created_at, last_active_at = from_micros(created_us), from_micros(last_active_us)
    timeouts = shared_timeouts(idle, absolute)
    expiry = deadline(created_at, last_active_at, timeouts)
    end: End | None = None
    if ended_at is not None:
        end = End(from_micros(ended_at), EndReason(end_reason))
    elif not enabled or created_version <= disabled_version:
        end, ended_by = End(from_micros(disabled_at), EndReason.USER_DISABLED), DISABLED
    elif invalidated_us is not None and (invalidated_at := from_micros(invalidated_us)) < expiry.at:
        end, ended_by = End(invalidated_at, EndReason(invalidated_reason)), INVALIDATED
    elif now >= expiry.at:
        end, ended_by = expiry, EXPIRY
    return SessionView(
        session_id,
        stream,
        user_id,
        created_version,
        created_event,
        created_at,
        last_active_at,
        timeouts,
        expiry.at,
        bool(remember_me),
        idp_name,
        None if auth_time is None else from_micros(auth_time),
        _amr(amr),
        device,
        client,
        end,
        ended_by,
    )


@lru_cache
def _amr(stored: str) -> tuple[str, ...]:
    return tuple(json.loads(stored))


class SessionQueries:
    """The questions, each answered from what was committed when it was asked; those that wait are read together."""

    def __init__(self, reads: Reads, clock: Clock) -> None:
        self._reads = reads
        self._clock = clock
        self._of_token = GroupedLookup(_reading(reads, _by_token_query))
        self._of_id = GroupedLookup(_reading(reads, _by_id_query))
        self._of_user = GroupedLookup(self._by_users)
        self._live_of = GroupedLookup(self._by_streams)

    async def by_token(self, token_hash: bytes) -> SessionView | None:
        """The session that this token opened, whether active or not."""
        return self._judged(await self._of_token.get(token_hash))

    async def by_id(self, session_id: UUID) -> SessionView | None:
        return self._judged(await self._of_id.get(session_id))

    async def of_user(self, stream: UUID, session_id: UUID) -> SessionView | None:
        """A session of this user; another user's is not even read (T-03)."""
        return self._judged(await self._of_user.get((stream, session_id)))

    async def active(self, stream: UUID) -> list[SessionView]:
        """Every active session of a user, newest activity first. Costs what his live sessions cost."""
        rows = await self._live_of.get(stream) or ()
        now = self._clock.now()
        views = (judge(row, now) for row in rows)
        return sorted(
            (v for v in views if v.end is None), key=lambda v: (v.last_active_at, v.created_version), reverse=True
        )

    async def history(self, stream: UUID, *, ended_only: bool, before: int, limit: int) -> list[SessionView]:
        """Sessions created below version `before` of the user's stream, newest first, at most `limit`."""
        now = self._clock.now()
        query = _ENDED if ended_only else _ALL
        values = {"now": to_micros(now)} if ended_only else {}
        rows = await self._reads.rows(query, stream=stream, before=before, limit=limit, **values)
        return [judge(row, now) for row in rows]

    async def _by_users(self, keys: list[tuple[UUID, UUID]]) -> dict[tuple[UUID, UUID], tuple[Any, ...]]:
        streams, ids = padded("s", [stream for stream, _ in keys]), padded("k", [session_id for _, session_id in keys])
        rows = await self._reads.rows(_of_user_query(len(ids)), **streams, **ids)
        return {(row[1], row[0]): row for row in rows}

    async def _by_streams(self, streams: list[UUID]) -> dict[UUID, list[tuple[Any, ...]]]:
        wanted = padded("k", streams)
        found: dict[UUID, list[tuple[Any, ...]]] = {}
        for row in await self._reads.rows(_live_query(len(wanted)), **wanted):
            found.setdefault(row[1], []).append(row)
        return found

    def _judged(self, row: tuple[Any, ...] | None) -> SessionView | None:
        return judge(row, self._clock.now()) if row else None


def streams_to_settle(connection: Connection, now: datetime, after: UUID | None, limit: int) -> list[UUID]:
    """Users, in order of their streams from `after` on, with live sessions that are over by `now`."""
    query = select(_s.stream).distinct().where(_u.stream == _s.stream, _u.enabled, _s.ended_at.is_(None), _over)
    if after is not None:
        query = query.where(_s.stream > bindparam("after"))
    values = {"now": to_micros(now), **({"after": after} if after else {})}
    return list(connection.execute(query.order_by(_s.stream).limit(limit), values).scalars())


def active_before(users: Sequence[UUID] | None) -> tuple[Table, Any]:
    """The table, and what is true of sessions that are active at `:now` and were created before `:created_before`."""
    of_these = true() if users is None else _s.stream.in_(users)
    user_is_fine = and_(_u.stream == _s.stream, _u.enabled, _s.created_version > _u.disabled_version)
    active = and_(user_is_fine, _s.ended_at.is_(None), not_(_over))
    return _live.sessions, and_(of_these, active, _s.created_at < bindparam("created_before"))


def read_invalidations(connection: Connection) -> tuple[Invalidation, ...]:
    """Those that are in force, in the order in which they were recorded."""
    columns = (_i.created_before, _i.invalidated_at, _i.reason, _i.event_id, _i.correlation_id)
    rows = connection.execute(select(*columns).order_by(_i.position))
    return tuple(
        Invalidation(from_micros(before), from_micros(at), EndReason(reason), event_id, correlation_id)
        for before, at, reason, event_id, correlation_id in rows
    )


_second = literal(1_000_000, BigInteger)  # as a plain number the product of two `integer`s overflows on PostgreSQL
_past_deadline = or_(
    _s.last_active_at + _s.idle_timeout * _second <= bindparam("now"),
    _s.created_at + _s.absolute_timeout * _second <= bindparam("now"),
)
_invalidated_since = exists().where(_earlier.created_before > _s.created_at)
_over = or_(_past_deadline, _invalidated_since)
_of_stream = and_(_s.stream == bindparam("stream"), _s.created_version < bindparam("before"))
_page = _view.where(_of_stream).order_by(_s.created_version.desc()).limit(bindparam("limit"))
_ALL = Query(_page)
_ENDED = Query(
    _page.where(or_(_s.ended_at.is_not(None), ~_u.enabled, _s.created_version <= _u.disabled_version, _over))
)


def _reading(reads: Reads, query: Callable[[int], Query]) -> Callable[[list[Any]], Awaitable[dict[Any, Any]]]:
    """Reads rows by keys, of which each row has its own at the end."""

    async def read(keys: list[Any]) -> dict[Any, tuple[Any, ...]]:
        wanted = padded("k", keys)
        return {row[-1]: row[:-1] for row in await reads.rows(query(len(wanted)), **wanted)}

    return read


def _among(column: Any, size: int) -> Any:
    return column.in_([bindparam(f"k{i}") for i in range(size)])


@cache
def _by_token_query(size: int) -> Query:
    return Query(select(*_columns, _s.token_hash).select_from(_joined).where(_among(_s.token_hash, size)))


@cache
def _by_id_query(size: int) -> Query:
    return Query(select(*_columns, _s.session_id).select_from(_joined).where(_among(_s.session_id, size)))


@cache
def _of_user_query(size: int) -> Query:
    pairs = (and_(_s.session_id == bindparam(f"k{i}"), _s.stream == bindparam(f"s{i}")) for i in range(size))
    return Query(_view.where(or_(*pairs)))


@cache
def _live_query(size: int) -> Query:
    return Query(_view.where(_among(_s.stream, size), _s.ended_at.is_(None)))
