"""Statements for many rows at once: as arrays on PostgreSQL, as lists of values on SQLite.

One statement for many rows is one round trip on PostgreSQL. On SQLite it is one step: at each step the driver gives
Python's lock away, and with a step for each row the writer and the event loop would take it from each other.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any

from sqlalchemy import Column, Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

LARGEST = 128

_POSTGRESQL = postgresql.dialect()  # type: ignore[no-untyped-call]

Row = tuple[Any, ...]


class Bulk:
    """A statement with a place for rows. A row is a tuple of what the driver takes, in the order of `columns`."""

    def __init__(self, columns: Sequence[Column[Any]], statement: str, *, is_keyed: bool = False) -> None:
        self._columns, self._statement, self._is_keyed = columns, statement, is_keyed
        self._for_sqlite = cache(self._with_values)

    def run(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Of several rows with one key, which comes last, the last one counts."""
        if self._is_keyed:
            rows = list({row[-1]: row for row in rows}.values())
        if connection.dialect.name == sqlite.dialect.name:
            for part in _parts(rows):
                connection.exec_driver_sql(self._for_sqlite(len(part)), tuple(chain.from_iterable(part)))
        elif rows:
            connection.exec_driver_sql(self._with_arrays, tuple(map(list, zip(*rows, strict=True))))

    def _with_values(self, count: int) -> str:
        row = f"({', '.join('?' * len(self._columns))})"
        return self._statement.format(rows=f"(VALUES {', '.join([row] * count)})")

    @property
    def _with_arrays(self) -> str:
        arrays = (f"%s::{column.type.compile(dialect=_POSTGRESQL)}[]" for column in self._columns)
        return self._statement.format(rows=f"(SELECT * FROM unnest({', '.join(arrays)}))")


def insert_many(table: Table) -> Bulk:
    """Rows of all columns, as the table has them."""
    names = ", ".join(column.name for column in table.c)
    return Bulk(
        list(table.c), f"WITH added ({names}) AS {{rows}} INSERT INTO {table.name} ({names}) SELECT * FROM added"
    )


def update_many(key: Column[Any], *columns: Column[Any]) -> Bulk:
    """Rows of these columns, then the key."""
    names = [column.name for column in columns]
    changes = ", ".join(f"{name} = changed.{name}" for name in names)
    return Bulk(
        [*columns, key],
        f"WITH changed ({', '.join(names)}, {key.name}) AS {{rows}} UPDATE {key.table.name} SET {changes} "
        f"FROM changed WHERE {key.table.name}.{key.name} = changed.{key.name}",
        is_keyed=True,
    )


def _parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """In sizes that are powers of two: few statements, each prepared once."""
    start = 0
    while left := len(rows) - start:
        size = min(LARGEST, 1 << (left.bit_length() - 1))
        yield rows[start : start + size]
        start += size
