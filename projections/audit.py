"""The `audit` read model: one row for each event of the log, to be found by user, session, actor, type and time.

It follows the log, so it may be some moments behind; its position says how far it is. It holds no personal data: users
stand in it as their pseudonyms, and what is sealed stays in the log.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, Column, Connection, Index, MetaData, Select, Table, Text, select
from sqlalchemy.sql.elements import UnaryExpression
from sqlalchemy.sql.operators import custom_op

from projections.audit_filter import AuditFilter
from store.bulk import Bulk, Kind, Row, insert_many
from store.plain import micros
from store.recorder import Entry, tracked
from store.schema import Id, Micros, Position, head


class AuditProjection:
    """Folds the log into `audit` and `audit_types`. A rebuild folds into tables of its own, named with a `suffix`."""

    name = "audit.1"

    def __init__(self, suffix: str = "") -> None:
        self.metadata = MetaData()
        self.audit = _audit_table(self.metadata, suffix)
        self.types = _types_table(self.metadata, suffix)
        self._add_rows, self._add_counts = insert_many(self.audit), _adding(self.types)
        self.bulks: Sequence[Bulk] = [self._add_rows, self._add_counts]

    def create_tables(self, connection: Connection) -> None:
        self.metadata.create_all(connection)

    def apply(self, connection: Connection, entries: Sequence[Entry]) -> None:
        for bulk, rows in self.changes(entries):
            bulk.run(connection, rows)

    def changes(self, entries: Sequence[Entry]) -> Iterator[tuple[Bulk, Sequence[Row]]]:
        yield self._add_rows, [_row(entry) for entry in entries]
        yield self._add_counts, sorted(Counter(entry.fact.TOPIC for entry in entries).items())


class AuditRow(NamedTuple):
    """An event as the read model has it. `timestamp` (when it happened) and `recorded_at` are microseconds."""

    position: int
    event_id: UUID
    event_type: str
    stream: UUID
    session_id: UUID | None
    actor: str
    reason: str | None
    correlation_id: UUID
    causation_id: UUID | None
    timestamp: int
    recorded_at: int


def _audit_table(metadata: MetaData, suffix: str) -> Table:
    """Columns as in `AuditRow`. Each index ends with the position, so that any page is one range of it."""
    table = Table(
        f"audit{suffix}",
        metadata,
        Column("position", Position, primary_key=True, autoincrement=False),
        Column("event_id", Id, nullable=False),
        Column("event_type", Text, nullable=False),
        Column("stream", Id, nullable=False),
        Column("session_id", Id),
        Column("actor", Text, nullable=False),
        Column("reason", Text),
        Column("correlation_id", Id, nullable=False),
        Column("causation_id", Id),
        Column("timestamp", Micros, nullable=False),
        Column("recorded_at", Micros, nullable=False),
    )
    Index(f"audit{suffix}_event_id", table.c.event_id, unique=True)
    for name in (*INDEXED, "recorded_at"):
        has_one = table.c[name].is_not(None) if table.c[name].nullable else None
        Index(f"audit{suffix}_{name}", table.c[name], table.c.position, sqlite_where=has_one, postgresql_where=has_one)
    return table


def _types_table(metadata: MetaData, suffix: str) -> Table:
    """How many events of each type there are: to count them would be to read them all."""
    return Table(
        f"audit_types{suffix}",
        metadata,
        Column("event_type", Text, primary_key=True),
        Column("events", BigInteger, nullable=False),
    )


def _adding(types: Table) -> Bulk:
    """Rows of a type and how many events more there are of it."""
    return Bulk(
        Kind.INSERT,
        list(types.c),
        f"WITH added (event_type, events) AS {{rows}} INSERT INTO {types.name} SELECT * FROM added WHERE true "
        f"ON CONFLICT (event_type) DO UPDATE SET events = {types.name}.events + excluded.events",
    )


INDEXED = ("session_id", "stream", "actor", "event_type")
"""Filters of which one is enough to find rows by; the fewest rows come by the first, mostly."""


def _row(entry: Entry) -> tuple[Any, ...]:
    fact = entry.fact
    return (
        entry.position,
        fact.event_id,
        fact.TOPIC,
        fact.originator_id,
        getattr(fact, "session_id", None),
        fact.actor,
        getattr(fact, "reason", None),
        fact.correlation_id,
        fact.causation_id,
        micros(fact.timestamp),
        entry.recorded_at,
    )


_live = AuditProjection()
_a = _live.audit.c
_columns = [_a[name] for name in AuditRow._fields]


class Freshness(NamedTuple):
    """The read model has every event up to `position`; the log ends at `head`."""

    position: int
    head: int


def freshness(connection: Connection) -> Freshness:
    """Ask before rows are read: then they are at least as fresh."""
    return Freshness(
        tracked(connection, AuditProjection.name) or 0, connection.execute(select(head.c.position)).scalar_one()
    )


def newest(
    connection: Connection, asked: AuditFilter, limit: int, *, before: int | None = None, offset: int = 0
) -> list[AuditRow]:
    """The last events that fit, newest first; `before` a position, or behind `offset` others."""
    query = _fitting(connection, asked).order_by(_a.position.desc()).limit(limit).offset(offset or None)
    if before is not None:
        query = query.where(_a.position < before)
    return [AuditRow(*row) for row in connection.execute(query)]


def following(connection: Connection, asked: AuditFilter, limit: int, after: int, until: int) -> list[AuditRow]:
    """The next events that fit behind `after` up to `until`, oldest first."""
    query = (
        _fitting(connection, asked).where(_a.position > after, _a.position <= until).order_by(_a.position).limit(limit)
    )
    return [AuditRow(*row) for row in connection.execute(query)]


def by_event_id(connection: Connection, event_id: UUID) -> AuditRow | None:
    row = connection.execute(select(*_columns).where(_a.event_id == event_id)).one_or_none()
    return AuditRow(*row) if row else None


def counts(connection: Connection) -> dict[str, int]:
    """How many events there are of each type."""
    types = _live.types
    rows = connection.execute(select(types).order_by(types.c.event_type))
    return {row.event_type: row.events for row in rows}


def last_before(connection: Connection, moment: int) -> int:
    """The position of the last event that was recorded before a moment (microseconds); 0 when there is none."""
    earlier = select(_a.position).where(_a.recorded_at < moment)
    latest_first = earlier.order_by(_a.recorded_at.desc(), _a.position.desc()).limit(1)
    return connection.execute(latest_first).scalar() or 0


def _fitting(connection: Connection, asked: AuditFilter) -> Select[Any]:
    """SQLite, which keeps no statistics by itself, takes any index that would do: only one is left to choose."""
    query = select(*_columns)
    given = [name for name in INDEXED if getattr(asked, name) is not None]
    for name in given:
        column: Any = _a[name]
        if name != given[0] and connection.dialect.name == "sqlite":
            column = UnaryExpression(column, operator=_unindexed, type_=column.type)
        query = query.where(column == getattr(asked, name))
    return query.where(*_within(asked))


_unindexed: Any = custom_op("+")  # a term that begins so is not looked up (https://www.sqlite.org/optoverview.html)


def _within(asked: AuditFilter) -> list[Any]:
    """Times never decrease along positions, so a span of time is a range of positions: its ends are looked up."""
    ends = []
    if asked.start is not None:
        later = select(_a.position).where(_a.recorded_at >= asked.start)
        ends.append(_a.position >= later.order_by(_a.recorded_at, _a.position).limit(1).scalar_subquery())
    if asked.end is not None:
        earlier = select(_a.position).where(_a.recorded_at <= asked.end)
        latest_first = earlier.order_by(_a.recorded_at.desc(), _a.position.desc())
        ends.append(_a.position <= latest_first.limit(1).scalar_subquery())
    return ends
