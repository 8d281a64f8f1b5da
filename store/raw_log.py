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
STRAYS = 1_000

Row = tuple[Any, ...]
"""The columns of a row; a stream as its 16 bytes."""


class Outline(NamedTuple):
    """The rows of `head`, and the last position that there is, 0 for none; all read in one statement."""

    heads: list[tuple[Any, Any]]
    last: int


class RawLog(Protocol):
    """One connection, for reading."""

    is_sqlite: bool

    def outline(self) -> Outline: ...

    def rows(self, after: int, until: int) -> Iterator[list[Row]]:
        """Page by page, in the order of their positions."""
        ...

    def strays(self, last: int) -> list[Row]:
        """Position, version and stream of rows where no position is that is behind 0, or none at all; not all."""
        ...

    def columns(self, table: str) -> list[Row]:
        """Name, type and whether a value is required, of each column of a table; none where there is no such table."""
        ...

    def guards(self) -> list[Row]:
        """What stands around the log, as statements: triggers at work and what they run, rules, keys of its tables."""
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
        first_line, *_ = str(error).splitlines() or [repr(error)]
        raise StoreUnavailable(f"The log cannot be read: {first_line}") from error


class SqliteLog:
    is_sqlite = True
    LAST = "SELECT position FROM events WHERE typeof(position) = 'integer' ORDER BY position DESC LIMIT 1"
    STRAYS = (  # three questions, as an index answers each
        "position IS NULL",
        "position < 1",
        "position > ? AND typeof(position) <> 'integer'",
    )
    GUARDS = """
        SELECT sql FROM sqlite_master WHERE type = 'trigger'
        UNION ALL SELECT t.name || ': PRIMARY KEY (' || group_concat(c.name, ', ') || ')'
          FROM sqlite_master t, pragma_table_info(t.name) c WHERE t.name IN ('events', 'head') AND c.pk GROUP BY t.name
        UNION ALL SELECT t.name || ': UNIQUE (' ||
            (SELECT group_concat(name, ', ') FROM pragma_index_info(i.name)) || ')'
          FROM sqlite_master t, pragma_index_list(t.name) i
          WHERE t.name IN ('events', 'head') AND i."unique" AND NOT i.partial"""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def outline(self) -> Outline:
        return _outlined(self.ask(f"SELECT ({self.LAST}), position, recorded_at FROM (SELECT 1) LEFT JOIN head"))

    def rows(self, after: int, until: int) -> Iterator[list[Row]]:
        query = f"SELECT {', '.join(COLUMNS)} FROM events WHERE position > ? AND position <= ? ORDER BY position"
        return (self.ask(query, start, min(start + PAGE, until)) for start in range(after, until, PAGE))

    def strays(self, last: int) -> list[Row]:
        query = f"SELECT position, version, hex(stream) FROM events WHERE %s LIMIT {STRAYS}"
        return [row for where in self.STRAYS for row in self.ask(query % where, *[last] * where.count("?"))]

    def columns(self, table: str) -> list[Row]:
        return self.ask('SELECT name, type, "notnull" FROM pragma_table_info(?)', table)

    def guards(self) -> list[Row]:
        return self.ask(self.GUARDS)

    def ask(self, sql: str, *arguments: Any) -> list[Row]:
        try:
            return self._connection.execute(sql, arguments).fetchall()
        except sqlite3.OperationalError:  # perhaps of a text that is not UTF-8; to read every text so takes longer
            self._connection.text_factory = lambda text: text.decode(errors="surrogateescape")
            return self._connection.execute(sql, arguments).fetchall()
        finally:
            self._connection.text_factory = str


class PostgresqlLog:
    """Columns are cast to the types that they should have, so that of another type nothing is misread."""

    is_sqlite = False
    ROWS = (
        "SELECT position::int8, uuid_send(stream), version::int8, recorded_at::int8, topic::text, state::bytea"
        " FROM events WHERE position > ? AND position <= ? ORDER BY position"
    )
    LAST = "SELECT max(position)::int8 FROM events"
    GUARDS = """
        WITH guarded AS (SELECT * FROM pg_trigger
          WHERE NOT tgisinternal AND tgrelid IN (to_regclass('events'), to_regclass('head')))
        SELECT pg_get_triggerdef(oid, true) FROM guarded WHERE tgenabled IN ('O', 'A')
        UNION SELECT 'CREATE FUNCTION ' || proname || '() RETURNS trigger LANGUAGE ' || lanname
            || ' AS $$' || prosrc || '$$'
          FROM guarded JOIN pg_proc p ON p.oid = tgfoid JOIN pg_language l ON l.oid = prolang
        UNION SELECT 'ALTER FUNCTION ' || proname || '() SET '
            || replace(setting, '=' || quote_ident(nspname) || ', ', ' = its own, ')
          FROM guarded JOIN pg_proc p ON p.oid = tgfoid JOIN pg_namespace n ON n.oid = pronamespace,
            unnest(proconfig) setting
        UNION SELECT pg_get_ruledef(oid, true) FROM pg_rewrite
          WHERE ev_class IN (to_regclass('events'), to_regclass('head'))
        UNION SELECT relname || ': ' || replace(pg_get_constraintdef(c.oid, true), '"', '')
          FROM pg_constraint c JOIN pg_class t ON t.oid = conrelid
          WHERE contype <> 'n' AND conrelid IN (to_regclass('events'), to_regclass('head'))"""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def outline(self) -> Outline:
        query = f"SELECT ({self.LAST}), position, recorded_at FROM (SELECT 1) one LEFT JOIN head ON true"
        return _outlined(self.ask(query))

    def rows(self, after: int, until: int) -> Iterator[list[Row]]:
        return (self.ask(self.ROWS, start, min(start + PAGE, until)) for start in range(after, until, PAGE))

    def strays(self, last: int) -> list[Row]:
        where = "position IS NULL OR position < 1"
        return self.ask(f"SELECT position, version, stream FROM events WHERE {where} LIMIT {STRAYS}")

    def columns(self, table: str) -> list[Row]:
        return self.ask(
            "SELECT attname::text, upper(format_type(atttypid, atttypmod)), attnotnull FROM pg_attribute"
            " WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped",
            table,
        )

    def guards(self) -> list[Row]:
        return self.ask(self.GUARDS)

    def ask(self, sql: str, *arguments: Any) -> list[Row]:
        return self._connection.execute(sql.replace("?", "%s").encode(), arguments, binary=True).fetchall()


def _outlined(rows: list[Row]) -> Outline:
    return Outline([row[1:] for row in rows if row[1:] != (None, None)], rows[0][0] or 0)
