"""The rows of the log as the driver gives them, for who looks at every one of them: nothing is converted or trusted.

SQLite lets a column hold anything, and text that is not UTF-8, so a row is whatever it is.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, NamedTuple, Protocol

import psycopg

from domain.errors import StoreUnavailable
from store.database import Database, connect_sqlite_reader

COLUMNS = ("position", "stream", "version", "recorded_at", "topic", "state")
PAGE = 2_048

Row = tuple[Any, ...]
"""The columns of a row; a stream as its 16 bytes."""


class Outline(NamedTuple):
    """The rows of `head`, and the first and the last position that there is, all read in one statement."""

    heads: list[tuple[Any, Any]]
    first: int | None
    last: int | None


class RawLog(Protocol):
    """One connection, for reading."""

    def outline(self) -> Outline: ...

    def rows(self, after: int, until: int) -> Iterator[list[Row]]:
        """Page by page, in the order of their positions."""
        ...

    def ask(self, sql: str, *arguments: Any) -> list[Row]:
        """The rows that a query with `?` for each argument finds."""
        ...


@contextmanager
def raw_log(database: Database) -> Iterator[RawLog]:
    """Raises `StoreUnavailable` where the database cannot be read."""
    try:
        if database.is_sqlite:
            database.must_exist()
            with closing(connect_sqlite_reader(database.path, converted=False)) as file:
                yield SqliteLog(file)
        else:
            with psycopg.connect(**database.libpq(), autocommit=True) as connection:
                yield PostgresqlLog(connection)
    except (sqlite3.Error, psycopg.Error) as error:
        raise StoreUnavailable(f"The log cannot be read: {error}") from error


class SqliteLog:
    OUTLINE = "SELECT h.position, h.recorded_at, (SELECT min(position) FROM events), (SELECT max(position) FROM events)"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def outline(self) -> Outline:
        return _outlined(self.ask(f"{self.OUTLINE} FROM (SELECT 1) LEFT JOIN head h"))

    def rows(self, after: int, until: int) -> Iterator[list[Row]]:
        query = f"SELECT {', '.join(COLUMNS)} FROM events WHERE position > ? AND position <= ? ORDER BY position"
        with closing(self._connection.execute(query, (after, until))) as cursor:
            while page := cursor.fetchmany(PAGE):
                yield page

    def ask(self, sql: str, *arguments: Any) -> list[Row]:
        return self._connection.execute(sql, arguments).fetchall()


class PostgresqlLog:
    COPY = (
        "COPY (SELECT position, uuid_send(stream), version, recorded_at, topic, state FROM events"
        " WHERE position > %s AND position <= %s ORDER BY position) TO STDOUT (FORMAT BINARY)"
    )
    TYPES = ("int8", "bytea", "int4", "int8", "text", "bytea")

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def outline(self) -> Outline:
        return _outlined(self.ask(f"{SqliteLog.OUTLINE} FROM (SELECT 1) one LEFT JOIN head h ON true"))

    def rows(self, after: int, until: int) -> Iterator[list[Row]]:
        with self._connection.cursor() as cursor, cursor.copy(self.COPY, (after, until)) as copy:
            copy.set_types(self.TYPES)
            page: list[Row] = []
            for row in copy.rows():
                page.append(row)
                if len(page) == PAGE:
                    yield page
                    page = []
            if page:
                yield page

    def ask(self, sql: str, *arguments: Any) -> list[Row]:
        return self._connection.execute(sql.replace("?", "%s").encode(), arguments).fetchall()


def _outlined(rows: list[Row]) -> Outline:
    return Outline([(row[0], row[1]) for row in rows if row[:2] != (None, None)], rows[0][2], rows[0][3])
