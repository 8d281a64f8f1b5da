"""Statements for many rows at once: as arrays on PostgreSQL, as lists of values on SQLite.

One statement for many rows is one round trip on PostgreSQL. On SQLite it is one step: at each step the driver gives
Python's lock away, and with a step for each row the writer and the event loop would take it from each other.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from functools import cache
from itertools import chain
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, Column, Connection, Integer, LargeBinary, Table, Text
from sqlalchemy.dialects import postgresql, sqlite

from store.schema import Id

LARGEST = 128

_POSTGRESQL = postgresql.dialect()  # type: ignore[no-untyped-call]

Row = tuple[Any, ...]


class Kind(Enum):
    INSERT, UPDATE, DELETE = range(3)


class Bulk:
    """A statement with a place for rows. A row is a tuple of what the driver takes, in the order of `columns`.

    Rows of an update or a deletion end with the key. An id may also be hex digits or its 16 bytes, in all rows alike:
    what comes out of JSON, or out of a column, need not become a `UUID`.
    """

    def __init__(self, kind: Kind, columns: Sequence[Column[Any]], statement: str) -> None:
        self.kind, self.columns, self.table, self._statement = kind, columns, columns[-1].table, statement
        self._ids = [number for number, column in enumerate(columns) if isinstance(column.type, Id)]
        self._for_sqlite = cache(self._with_values)

    def run(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Of several changes of one row the last one counts."""
        if self.kind is Kind.UPDATE:
            rows = list({row[-1]: row for row in rows}.values())
        for statement, values in self._statements(connection, rows):
            connection.exec_driver_sql(statement, values)

    def returned(self, connection: Connection, rows: Sequence[Row]) -> list[Row]:
        """What the database says of each row that it took."""
        return [
            tuple(row)
            for statement, values in self._statements(connection, rows)
            for row in connection.exec_driver_sql(statement, values)
        ]

    def _statements(self, connection: Connection, rows: Sequence[Row]) -> Iterator[tuple[str, tuple[Any, ...]]]:
        if connection.dialect.name == sqlite.dialect.name:
            for part in _parts(self._with_octets(rows)):
                yield self._for_sqlite(len(part)), tuple(chain.from_iterable(part))
        elif rows:
            columns = zip(self.columns, zip(*rows, strict=True), strict=True)
            yield self._with_arrays, tuple(_array(column, values) for column, values in columns)

    def _with_octets(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Ids as SQLite has them."""
        columns: list[Any] = [*zip(*rows, strict=True)]
        for number in self._ids if rows else ():
            columns[number] = [_octets(value) for value in columns[number]]
        return [*zip(*columns, strict=True)]

    def _with_values(self, count: int) -> str:
        row = f"({', '.join('?' * len(self.columns))})"
        return self._statement.format(rows=f"(VALUES {', '.join([row] * count)})")

    @property
    def _with_arrays(self) -> str:
        arrays = (f"%s::{column.type.compile(dialect=_POSTGRESQL)}[]" for column in self.columns)
        return self._statement.format(rows=f"(SELECT * FROM unnest({', '.join(arrays)}))")


def insert_many(table: Table, *columns: Column[Any], returning: Column[Any] | None = None) -> Bulk:
    """Rows of these columns; of all, as the table has them, where none are said."""
    columns = columns or tuple(table.c)
    names = ", ".join(column.name for column in columns)
    statement = f"WITH added ({names}) AS {{rows}} INSERT INTO {table.name} ({names}) SELECT * FROM added"
    if returning is not None:
        statement += f" RETURNING {returning.name}"
    return Bulk(Kind.INSERT, columns, statement)


def update_many(key: Column[Any], *columns: Column[Any]) -> Bulk:
    """Rows of these columns, then the key."""
    names = [column.name for column in columns]
    changes = ", ".join(f"{name} = changed.{name}" for name in names)
    return Bulk(
        Kind.UPDATE,
        [*columns, key],
        f"WITH changed ({', '.join(names)}, {key.name}) AS {{rows}} UPDATE {key.table.name} SET {changes} "
        f"FROM changed WHERE {key.table.name}.{key.name} = changed.{key.name}",
    )


def delete_many(key: Column[Any]) -> Bulk:
    """Rows of the key alone."""
    return Bulk(Kind.DELETE, [key], f"DELETE FROM {key.table.name} WHERE {key.name} IN {{rows}}")


def _octets(value: UUID | bytes | str | None) -> bytes | None:
    if isinstance(value, UUID):
        return value.bytes
    return bytes.fromhex(value) if isinstance(value, str) else value


def _array(column: Column[Any], values: Sequence[Any]) -> str:
    """PostgreSQL's text form of an array, which costs less than to let the driver look at each value."""
    write = _ELEMENTS[type(column.type)]
    return f"{{{','.join(['NULL' if value is None else write(value) for value in values])}}}"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_ELEMENTS: dict[type, Callable[[Any], str]] = {
    Id: lambda value: value if isinstance(value, str) else value.hex() if isinstance(value, bytes) else value.hex,
    Boolean: str,
    Integer: str,
    BigInteger: str,
    LargeBinary: lambda value: f'"\\\\x{value.hex()}"',
    Text: _quoted,
}
"""How a value of a column of this type is written in an array."""


def _parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """In sizes that are powers of two: few statements, each prepared once."""
    start = 0
    while left := len(rows) - start:
        size = min(LARGEST, 1 << (left.bit_length() - 1))
        yield rows[start : start + size]
        start += size
