"""The `sessions` read model: its tables, how facts change them, and the questions it answers.

Its rows are written in the append transaction, so an answer is never stale. Whether a session is active is judged at
every read, by the same rule that the domain decides with; the row alone never says so.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
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
    Select,
    Table,
    Text,
    and_,
    bindparam,
    insert,
    literal,
    or_,
    select,
    update,
)

from domain.events import (
    EndReason,
    Fact,
    Sealed,
    SessionCreated,
    SessionRevoked,
    SessionTouched,
    UserDisabled,
    UserEnabled,
    UserEnrolled,
)
from domain.session import End, Timeouts, deadline
from domain.user import DISABLED, EXPIRY
from projections.grouping import GroupedLookup
from store.clock import Clock, from_micros, to_micros
from store.reads import Query, Reads, padded
from store.recorder import Entry
from store.schema import Id, Micros, identities


class SessionsProjection:
    """Folds the log into `sessions` and `users`. A rebuild folds into tables of its own, named with a `suffix`."""

    name = "sessions.1"

    def __init__(self, suffix: str = "") -> None:
        self.metadata = MetaData()
        self.sessions = _sessions_table(self.metadata, suffix)
        self.users = _users_table(self.metadata, suffix)

    def create_tables(self, connection: Connection) -> None:
        self.metadata.create_all(connection)

    def apply(self, connection: Connection, entries: Sequence[Entry]) -> None:
        """Change the rows that these facts change, kind by kind: in this order kinds commute within a batch."""
        facts = [entry.fact for entry in entries]
        of = self.sessions.c
        by_id = of.session_id == bindparam("key")
        by_stream = self.users.c.stream == bindparam("key")
        _run(connection, insert(self.users), _of(facts, UserEnrolled, _new_user))
        _run(connection, insert(self.sessions), _of(facts, SessionCreated, _new_session))
        _run(connection, update(self.sessions).where(by_id), _last(_of(facts, SessionTouched, _used)))
        _run(connection, update(self.sessions).where(by_id), _of(facts, SessionRevoked, _ended))
        _run(connection, update(self.users).where(by_stream), _last(_of(facts, UserDisabled, _disabled)))
        _run(connection, update(self.users).where(by_stream), _last(_of(facts, UserDisabled | UserEnabled, _access)))


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
    )
    Index(f"sessions{suffix}_token", table.c.token_hash, unique=True)
    Index(f"sessions{suffix}_history", table.c.stream, table.c.created_version)
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


def _run(connection: Connection, statement: Any, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(statement, rows)


def _of(facts: Iterable[Fact], kind: Any, row: Any) -> list[dict[str, Any]]:
    return [row(fact) for fact in facts if isinstance(fact, kind)]


def _last(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({row["key"]: row for row in rows}.values())


def _new_user(fact: UserEnrolled) -> dict[str, Any]:
    return {"stream": fact.originator_id, "enabled": True, "disabled_version": 0, "disabled_at": None}


def _new_session(fact: SessionCreated) -> dict[str, Any]:
    created_at = to_micros(fact.timestamp)
    return {
        "session_id": fact.session_id,
        "stream": fact.originator_id,
        "token_hash": fact.token_hash,
        "created_version": fact.originator_version,
        "created_event": fact.event_id,
        "created_at": created_at,
        "last_active_at": created_at,
        "idle_timeout": fact.idle_timeout,
        "absolute_timeout": fact.absolute_timeout,
        "remember_me": fact.remember_me,
        "idp_name": fact.idp_name,
        "auth_time": None if fact.auth_time is None else to_micros(fact.auth_time),
        "amr": json.dumps(fact.amr),
        "device": fact.device,
        "client": fact.client.ciphertext if isinstance(fact.client, Sealed) else None,
    }


def _used(fact: SessionTouched) -> dict[str, Any]:
    return {"key": fact.session_id, "last_active_at": to_micros(fact.timestamp)}


def _ended(fact: SessionRevoked) -> dict[str, Any]:
    ended_at = to_micros(fact.ended_at)
    return {"key": fact.session_id, "ended_at": ended_at, "end_reason": fact.reason.value, "ended_by": fact.actor}


def _disabled(fact: UserDisabled) -> dict[str, Any]:
    return {
        "key": fact.originator_id,
        "disabled_version": fact.originator_version,
        "disabled_at": to_micros(fact.timestamp),
    }


def _access(fact: UserDisabled | UserEnabled) -> dict[str, Any]:
    return {"key": fact.originator_id, "enabled": isinstance(fact, UserEnabled)}


@dataclass(frozen=True, slots=True)
class SessionView:
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
_joined = _live.sessions.join(_live.users, _s.stream == _u.stream).join(identities, _s.stream == identities.c.stream)
_columns = (
    *(_s.session_id, _s.stream, identities.c.user_id, _s.created_version, _s.created_event, _s.created_at),
    *(_s.last_active_at, _s.idle_timeout, _s.absolute_timeout),
    *(_s.remember_me, _s.idp_name, _s.auth_time, _s.amr, _s.device, _s.client, _s.ended_at, _s.end_reason, _s.ended_by),
    *(_u.enabled, _u.disabled_version, _u.disabled_at),
)
_view = select(*_columns).select_from(_joined)


def judge(row: Sequence[Any], now: datetime) -> SessionView:
    """Read a row of `_view` as it stands at `now`: D3's rule, the same that the domain decides with."""
    session_id, stream, user_id, created_version, created_event, created_us, last_active_us, idle, absolute = row[:9]
    remember_me, idp_name, auth_time, amr, device, client, ended_at, end_reason, ended_by = row[9:18]
    enabled, disabled_version, disabled_at = row[18:]
    created_at, last_active_at = from_micros(created_us), from_micros(last_active_us)
    timeouts = Timeouts(idle, absolute)
    expiry = deadline(created_at, last_active_at, timeouts)
    end: End | None = None
    if ended_at is not None:
        end = End(from_micros(ended_at), EndReason(end_reason))
    elif not enabled or created_version <= disabled_version:
        end, ended_by = End(from_micros(disabled_at), EndReason.USER_DISABLED), DISABLED
    elif now >= expiry.at:
        end, ended_by = expiry, EXPIRY
    return SessionView(
        session_id=session_id,
        stream=stream,
        user_id=user_id,
        created_version=created_version,
        created_event=created_event,
        created_at=created_at,
        last_active_at=last_active_at,
        timeouts=timeouts,
        expires_at=expiry.at,
        remember_me=bool(remember_me),
        idp_name=idp_name,
        auth_time=None if auth_time is None else from_micros(auth_time),
        amr=tuple(json.loads(amr)),
        device=device,
        client=client,
        end=end,
        ended_by=ended_by,
    )


class SessionQueries:
    """The questions. Each is answered from what was committed when it was asked."""

    def __init__(self, reads: Reads, clock: Clock) -> None:
        self._reads = reads
        self._clock = clock
        self._checks = GroupedLookup(self._by_tokens)

    async def by_token(self, token_hash: bytes) -> SessionView | None:
        """The session that this token opened, whether active or not. Look-ups that wait together are read together."""
        return self._judged(await self._checks.get(token_hash))

    async def by_id(self, session_id: UUID) -> SessionView | None:
        rows = await self._reads.rows(_BY_ID, session_id=session_id)
        return self._judged(rows[0] if rows else None)

    async def of_user(self, stream: UUID, session_id: UUID) -> SessionView | None:
        """A session of this user; another user's is not even read (T-03)."""
        rows = await self._reads.rows(_OF_USER, session_id=session_id, stream=stream)
        return self._judged(rows[0] if rows else None)

    async def active(self, stream: UUID) -> list[SessionView]:
        """Every active session of a user, newest activity first. Costs what his live sessions cost."""
        now = self._clock.now()
        views = (judge(row, now) for row in await self._reads.rows(_LIVE, stream=stream))
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

    async def _by_tokens(self, hashes: list[bytes]) -> dict[bytes, tuple[Any, ...]]:
        wanted = padded("h", hashes)
        rows = await self._reads.rows(_by_token_query(len(wanted)), **wanted)
        return {row[-1]: row[:-1] for row in rows}

    def _judged(self, row: tuple[Any, ...] | None) -> SessionView | None:
        return judge(row, self._clock.now()) if row else None


def streams_past_deadline(connection: Connection, now: datetime, after: UUID | None, limit: int) -> list[UUID]:
    """Users, in order of their streams from `after` on, with live sessions that time has ended by `now`."""
    query = (
        select(_s.stream).distinct().where(_u.stream == _s.stream, _u.enabled, _s.ended_at.is_(None), _past_deadline)
    )
    if after is not None:
        query = query.where(_s.stream > bindparam("after"))
    values = {"now": to_micros(now), **({"after": after} if after else {})}
    return list(connection.execute(query.order_by(_s.stream).limit(limit), values).scalars())


_second = literal(1_000_000, BigInteger)  # as a plain number the product of two `integer`s overflows on PostgreSQL
_past_deadline = or_(
    _s.last_active_at + _s.idle_timeout * _second <= bindparam("now"),
    _s.created_at + _s.absolute_timeout * _second <= bindparam("now"),
)
_of_stream = and_(_s.stream == bindparam("stream"), _s.created_version < bindparam("before"))
_page = _view.where(_of_stream).order_by(_s.created_version.desc()).limit(bindparam("limit"))
_BY_ID = Query(_view.where(_s.session_id == bindparam("session_id")))
_OF_USER = Query(_view.where(_s.session_id == bindparam("session_id"), _s.stream == bindparam("stream")))
_LIVE = Query(_view.where(_s.stream == bindparam("stream"), _s.ended_at.is_(None)))
_ALL = Query(_page)
_ENDED = Query(
    _page.where(or_(_s.ended_at.is_not(None), ~_u.enabled, _s.created_version <= _u.disabled_version, _past_deadline))
)


@cache
def _by_token_query(size: int) -> Query:
    statement: Select[Any] = select(*_columns, _s.token_hash).select_from(_joined)
    return Query(statement.where(_s.token_hash.in_([bindparam(f"h{i}") for i in range(size)])))
