"""How two sets of tables of one read model differ: in their shape, and row by row.

The rows are compared by the database, key by key and column by column, so memory stays flat. Values are shown as they
are stored: personal data stays sealed. A live row may hold anything, and on SQLite a column may too: what it is read as
is converted where it can be, and shown as it is where it cannot.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Column, ColumnElement, Connection, Select, Table, and_, func, inspect, null, or_, select
from sqlalchemy.types import NullType

from projections.shadow import SUFFIX
from store.database import read_any_text
from store.schema import Id

LONGEST = 200  # characters of a value that are shown


@dataclass(frozen=True, slots=True)
class Difference:
    """A row, by its key, and what differs in it. A face that is None: there is no such row on that side."""

    table: str
    key: Mapping[str, Any]
    live: Mapping[str, Any] | None
    rebuilt: Mapping[str, Any] | None

    def __str__(self) -> str:
        row = f"{self.table} {', '.join(map(_text, self.key.values()))}"
        if self.live is None or self.rebuilt is None:
            return f"{row}: there is none among the {'rebuilt' if self.live is not None else 'live'} rows"
        values = (f"{c} is {_text(self.live[c])} live, {_text(self.rebuilt[c])} rebuilt" for c in self.live)
        return f"{row}: {'; '.join(values)}"


def shape_difference(connection: Connection, live: Table, rebuilt: Table) -> str | None:
    """What is told of tables that cannot be compared row by row."""
    inspector = inspect(connection)
    if not inspector.has_table(live.name):
        return f"{live.name}: there is no such table"
    if _shape(inspector, live.name) != _shape(inspector, rebuilt.name, SUFFIX):
        return f"{live.name}: the tables have different columns or indexes"
    return None


def _shape(inspector: Any, table: str, suffix: str = "") -> Any:
    columns = [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(table)]
    indexes = {
        index["name"].replace(suffix, ""): (index["column_names"], index["unique"], _condition(index))
        for index in inspector.get_indexes(table)
    }
    return columns, inspector.get_pk_constraint(table)["constrained_columns"], indexes


def _condition(index: Any) -> str | None:
    """The WHERE of a partial index."""
    options = index.get("dialect_options", {})
    return next((str(value) for name, value in options.items() if name.endswith("_where")), None)


def count_differing(connection: Connection, live: Table, rebuilt: Table) -> int:
    """How many rows differ, or are in one of the tables only."""
    queries = (_differing(live, rebuilt), _missing(live, rebuilt))
    return sum(connection.execute(select(func.count()).select_from(query.subquery())).scalar_one() for query in queries)


def differing_rows(connection: Connection, live: Table, rebuilt: Table, limit: int) -> Iterator[Difference]:
    """The first of them."""
    read_any_text(connection)
    for query in (_differing(live, rebuilt), _missing(live, rebuilt)):
        for row in connection.execute(query.limit(limit)):
            yield _difference(live, tuple(row))


def _differing(live: Table, rebuilt: Table) -> Select[Any]:
    """Both faces of each live row that was rebuilt otherwise, or not at all."""
    changed = (column.is_distinct_from(rebuilt.c[column.name]) for column in live.c)
    return _faces(live, rebuilt).select_from(live.outerjoin(rebuilt, _same_key(live, rebuilt))).where(or_(*changed))


def _missing(live: Table, rebuilt: Table) -> Select[Any]:
    """Both faces of each rebuilt row that is not there live."""
    no_live_row = next(iter(live.primary_key)).is_(None)
    return _faces(live, rebuilt).select_from(rebuilt.outerjoin(live, _same_key(live, rebuilt))).where(no_live_row)


def _faces(*tables: Table) -> Select[Any]:
    return select(
        *(_unconverted(column).label(f"{table.name}_{column.name}") for table in tables for column in table.c)
    )


def _unconverted(column: Column[Any]) -> ColumnElement[Any]:
    """SQLite's driver converts what comes out of a column by the type of that, and fails at what is not of it."""
    return func.coalesce(column, null(), type_=NullType())


def _same_key(live: Table, rebuilt: Table) -> ColumnElement[bool]:
    return and_(*(column == rebuilt.c[column.name] for column in live.primary_key))


def _difference(live: Table, row: tuple[Any, ...]) -> Difference:
    names = live.c.keys()
    values = [*map(_value, [*live.c] * 2, row)]
    mine, fresh = (dict(zip(names, face, strict=True)) for face in (values[: len(names)], values[len(names) :]))
    key = [column.name for column in live.primary_key]
    faces = [None if face[key[0]] is None else face for face in (mine, fresh)]
    if None not in faces:
        differing = [name for name in names if mine[name] != fresh[name]]
        faces = [{name: face[name] for name in differing} for face in (mine, fresh)]
    known = {name: fresh[name] if mine[name] is None else mine[name] for name in key}
    return Difference(live.name, known, *faces)


def _value(column: Column[Any], stored: Any) -> Any:
    """An id, which is 16 bytes on SQLite, as one; everything else as it is stored."""
    is_id = isinstance(column.type, Id) and isinstance(stored, bytes) and len(stored) == 16
    return UUID(bytes=stored) if is_id else stored


def _text(value: Any) -> str:
    """On a line of a terminal, which must obey nothing that stands in it (T-08)."""
    text = value.hex() if isinstance(value, bytes) else str(value)
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"
    return text if text.isprintable() else repr(text)
