"""Somebody who owns the log and changes it, past triggers and types, and puts it back as it was."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg

from store.database import Database as Store
from store.raw_log import COLUMNS
from tests.postgres import Database

Row = tuple[Any, ...]


class Tampering:
    """The log's owner at work. Rows have the columns of `store.raw_log`; on PostgreSQL a stream is a UUID."""

    def __init__(self, database: Database) -> None:
        self.is_sqlite = database.kind == "sqlite"
        self._connection: Any
        if self.is_sqlite:
            self._connection = sqlite3.connect(Store(database.url).path, isolation_level=None)
            self.run("PRAGMA synchronous = OFF")
            for (name,) in self.run("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
                self.run(f"DROP TRIGGER {name}")
        else:
            self._connection = psycopg.connect(**Store(database.owner_url).libpq(), autocommit=True)
            self.run("SET synchronous_commit = off")
            for table in ("events", "head"):
                self.run(f"ALTER TABLE {table} DISABLE TRIGGER USER")

    def close(self) -> None:
        self._connection.close()

    def run(self, sql: str, *values: Any) -> list[Row]:
        cursor = self._connection.execute(sql if self.is_sqlite else sql.replace("?", "%s"), values)
        return cursor.fetchall() if cursor.description else []

    def rows(self) -> list[Row]:
        return self.run(f"SELECT {', '.join(COLUMNS)} FROM events ORDER BY position")

    def set(self, position: int, column: str, value: Any) -> None:
        self.run(f"UPDATE events SET {column} = ? WHERE position = ?", value, position)

    def insert(self, row: Sequence[Any]) -> None:
        self.run(f"INSERT INTO events ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})", *row)

    def delete(self, position: int) -> None:
        self.run("DELETE FROM events WHERE position = ?", position)

    def stream(self, number: int) -> Any:
        return UUID(int=number).bytes if self.is_sqlite else UUID(int=number)

    def loosen(self) -> None:
        """From now on the log takes any row: twice the same position, or none; on SQLite of any type."""
        if self.is_sqlite:
            self.run("ALTER TABLE events RENAME TO events_before")
            self.run(f"CREATE TABLE events ({', '.join(COLUMNS)})")
            self.run(f"INSERT INTO events SELECT {', '.join(COLUMNS)} FROM events_before")
        else:
            self.run("ALTER TABLE events DROP CONSTRAINT events_pkey")
            for column in COLUMNS:
                self.run(f"ALTER TABLE events ALTER {column} DROP NOT NULL")

    @contextmanager
    def changed(self, position: int, column: str, value: Any) -> Iterator[None]:
        """One column of one row holds something else."""
        [before] = self.run(f"SELECT {', '.join(COLUMNS)} FROM events WHERE position = ?", position)
        self.set(position, column, value)
        yield
        self.delete(value if column == "position" else position)
        self.insert(before)

    @contextmanager
    def without(self, position: int) -> Iterator[None]:
        [before] = self.run(f"SELECT {', '.join(COLUMNS)} FROM events WHERE position = ?", position)
        self.delete(position)
        yield
        self.insert(before)

    @contextmanager
    def inserted(self, row: Sequence[Any]) -> Iterator[None]:
        self.insert(row)
        yield
        self.delete(row[0])

    @contextmanager
    def swapped(self, one: int, other: int) -> Iterator[None]:
        self._swap(one, other)
        yield
        self._swap(one, other)

    def _swap(self, one: int, other: int) -> None:
        for position, into in ((one, 1_000_000), (other, one), (1_000_000, other)):
            self.set(position, "position", into)
