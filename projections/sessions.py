"""The `sessions` read model: its tables, how facts change them, and the questions it answers.

Its rows are written in the append transaction, so an answer is never stale. Whether a session is active is judged at
every read, by the same rule that the domain decides with; the row alone never says so.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import cache, lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    and_,
    bindparam,
    delete,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
    true,
)

from domain.events import (
    EndReason,
    SessionCreated,
    SessionRevoked,
    SessionsInvalidatedBefore,
    SessionTouched,
    UserDisabled,
    UserEnabled,
    UserEnrolled,
    UserErased,
)
from domain.session import End, Invalidation, Timeouts, deadline, shared_timeouts
from domain.user import DISABLED, EXPIRY, INVALIDATED
from store.bulk import Bulk, insert_many, update_many
from store.clock import Clock, from_micros, to_micros
from store.grouping import GroupedLookup
from store.plain import micros, octets, sealed
from store.reads import Query, Reads, padded
from store.recorder import Entry
from store.schema import Id, Micros, Position, identities


class SessionsProjection:
    """Folds the log into `sessions`, `users`, `erasures` and `invalidations`.

    A rebuild folds into tables of its own, named with a `suffix`.
    """

    name = "sessions.1"

    def __init__(self, suffix: str = "") -> None:
        self.metadata = MetaData()
        self.sessions = _sessions_table(self.metadata, suffix)
        self.users = _users_table(self.metadata, suffix)
        self.erasures = _erasures_table(self.metadata, suffix)
        self.invalidations = _invalidations_table(self.metadata, suffix)
        s, u = self.sessions.c, self.users.c
        self._changes = (
            _Change({UserEnrolled.TOPIC}, insert_many(self.users), _new_user),
            _Change({SessionCreated.TOPIC}, insert_many(self.sessions), _new_session),
            _Change({SessionTouched.TOPIC}, update_many(s.session_id, s.last_active_at), _used),
            _Change({SessionRevoked.TOPIC}, update_many(s.session_id, s.ended_at, s.end_reason, s.ended_by), _ended),
            _Change({UserDisabled.TOPIC}, update_many(u.stream, u.disabled_version, u.disabled_at), _disabled),
            _Change({UserDisabled.TOPIC, UserEnabled.TOPIC}, update_many(u.stream, u.enabled), _access),
            _Change({UserErased.TOPIC}, insert_many(self.erasures), _erased),
        )
        self._changed_by: dict[str, list[int]] = {}
        for number, change in enumerate(self._changes):
            for topic in change.topics:
                self._changed_by.setdefault(topic, []).append(number)
        self._add_invalidations = insert_many(self.invalidations)

    def create_tables(self, connection: Connection) -> None:
        self.metadata.create_all(connection)

    def apply(self, connection: Connection, entries: Sequence[Entry]) -> None:
        """Change the rows that these facts change, kind by kind: in this order kinds commute within a batch.

        What an erased user's rows held goes last: nothing of him follows.
        """
        facts = [entry.fact for entry in entries]
        rows: list[list[tuple[Any, ...]]] = [[] for _ in self._changes]
        for fact in facts:
            for number in self._changed_by.get(fact.TOPIC, ()):
                rows[number].append(self._changes[number].row(fact))
        for change, its_rows in zip(self._changes, rows, strict=True):
            change.bulk.run(connection, its_rows)
        invalidations = [entry for entry in entries if isinstance(entry.fact, SessionsInvalidatedBefore)]
        self._add_invalidations.run(connection, [_invalidated(*entry) for entry in invalidations])
        if erased := [fact.originator_id for fact in facts if isinstance(fact, UserErased)]:
            connection.execute(delete(self.sessions).where(self.sessions.c.stream.in_(erased)))


class _Change(NamedTuple):
    """What facts of these topics do: a row for each, and the statement that takes them."""

    topics: set[str]
    bulk: Bulk
    row: Callable[[Any], tuple[Any, ...]]


def _sessions_table(metadata: MetaData, suffix: str) -> Table:
    table = Table(
        f"sessions{suffix}",
        metadata,
        Column("session_id", Id, primary_key=True),
        Column("stream", Id, nullable=False),
        Column("token_hash", LargeBinary, nullable=False),
        Column("created_version", Integer, nullable=False),
        Column("created_event", Id, nullable=False),
        Column("created_at", Micros, nullable=False),
        Column("last_active_at", Micros, nullable=False),
        Column("idle_timeout", Integer, nullable=False),
        Column("absolute_timeout", Integer, nullable=False),
        Column("remember_me", Boolean, nullable=False),
        Column("idp_name", Text),
        Column("auth_time", Micros),
        Column("amr", Text, nullable=False),
        Column("device", Text, nullable=False),
        Column("client", LargeBinary),
        Column("ended_at", Micros),
        Column("end_reason", Text),
        Column("ended_by", Text),
        postgresql_with={"fillfactor": 70},  # room on each page for the next version of a row that is touched
    )
    Index(f"sessions{suffix}_token", table.c.token_hash, unique=True)
    Index(f"sessions{suffix}_history", table.c.stream, table.c.created_version, info={"used_by_fold": True})
    live = table.c.ended_at.is_(None)
    Index(f"sessions{suffix}_live", table.c.stream, sqlite_where=live, postgresql_where=live)
    return table


def _users_table(metadata: MetaData, suffix: str) -> Table:
    return Table(
        f"users{suffix}",
        metadata,
        Column("stream", Id, primary_key=True),
        Column("enabled", Boolean, nullable=False),
        Column("disabled_version", Integer, nullable=False),
        Column("disabled_at", Micros),
    )


def _erasures_table(metadata: MetaData, suffix: str) -> Table:
    """Who was erased. His row of `users` stays, and says nothing about him; his sessions go."""
    return Table(
        f"erasures{suffix}",
        metadata,
        Column("stream", Id, primary_key=True),
        Column("erased_at", Micros, nullable=False),
    )


def _invalidations_table(metadata: MetaData, suffix: str) -> Table:
    """When everybody was signed out at once. Few rows, and every check looks at them."""
    return Table(
        f"invalidations{suffix}",
        metadata,
        Column("position", Position, primary_key=True, autoincrement=False),
        Column("created_before", Micros, nullable=False),
        Column("invalidated_at", Micros, nullable=False),
        Column("reason", Text, nullable=False),
        Column("event_id", Id, nullable=False),
        Column("correlation_id", Id, nullable=False),
    )


def _new_user(fact: UserEnrolled) -> tuple[Any, ...]:
    return fact.originator_id, True, 0, None


def _new_session(fact: SessionCreated) -> tuple[Any, ...]:
    """In the order of the table's columns; it has not ended."""
    created_at = micros(fact.timestamp)
    return (
        fact.session_id,
        fact.originator_id,
        octets(fact.token_hash),
        fact.originator_version,
        fact.event_id,
        created_at,
        created_at,
        fact.idle_timeout,
        fact.absolute_timeout,
        fact.remember_me,
        fact.idp_name,
        None if fact.auth_time is None else micros(fact.auth_time),
        _amr_text(tuple(fact.amr)),
        fact.device,
        sealed(fact.client),
        *(None, None, None),
    )


def _used(fact: SessionTouched) -> tuple[Any, ...]:
    return micros(fact.timestamp), fact.session_id


def _ended(fact: SessionRevoked) -> tuple[Any, ...]:
    return micros(fact.ended_at), str(fact.reason), fact.actor, fact.session_id


def _disabled(fact: UserDisabled) -> tuple[Any, ...]:
    return fact.originator_version, micros(fact.timestamp), fact.originator_id


def _access(fact: UserDisabled | UserEnabled) -> tuple[Any, ...]:
    return isinstance(fact, UserEnabled), fact.originator_id


def _erased(fact: UserErased) -> tuple[Any, ...]:
    return fact.originator_id, micros(fact.timestamp)


def _invalidated(position: int, _: int, fact: SessionsInvalidatedBefore) -> tuple[Any, ...]:
    at = micros(fact.timestamp)
    return position, micros(fact.before), at, str(fact.reason), fact.event_id, fact.correlation_id


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


_amr_text = lru_cache(json.dumps)


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
