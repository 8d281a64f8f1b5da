"""The tables that a rebuild fills beside the live ones (D11), and how far it has come with them.

Rows and position are saved in one transaction, so a rebuild that was killed goes on where it was. Tables that other
code has begun to fill are not gone on with: they are dropped.
"""

import gc
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from sqlalchemy import Connection, MetaData, delete, inspect, update
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.schema import CreateTable

from projections.places import Projection
from projections.staging import Staging
from store.bulk import Bulk, Row
from store.database import Database
from store.plain import plain_entries, plain_pages
from store.recorder import Entry, tracked
from store.schema import tracking

PAGE = 10_000
CACHE_KB = 64_000  # of SQLite: a page of events touches rows all over the tables
CHECKPOINT_PAGES = 16_000
SUFFIX = "_rebuilt"
ROOT = Path(__file__).parents[1]

Report = Callable[[int, int], None]
"""Is told how many events were folded, of how many."""

_BY = " by "


class Rebuildable(Projection, Protocol):
    """Made with a suffix, it has tables of its own; each has a primary key. `apply` runs its `changes`."""

    metadata: MetaData
    bulks: Sequence[Bulk]

    def __init__(self, suffix: str = "") -> None: ...

    def changes(self, entries: Sequence[Entry]) -> Iterator[tuple[Bulk, Sequence[Row]]]: ...


class RebuildStopped(Exception):
    """An event cannot be read, or not be applied. The live tables are as they were; so is the shadow up to there."""

    def __init__(self, position: int, cause: Exception) -> None:
        super().__init__(f"It stopped at position {position}, where an event cannot be folded: {cause}")
        self.position = position


class Superseded(Exception):
    """Somebody else has moved this shadow on."""


class Shadow:
    """`position` is what has been folded and committed."""

    def __init__(self, database: Database, projection: Rebuildable) -> None:
        self._database = database
        self.projection = projection
        self._staging = Staging(projection.bulks)
        self.name = f"{projection.name}{SUFFIX}"
        self._tracked_as = f"{self.name}{_BY}{code()}"
        self.position = 0

    def open(self, most: int) -> None:
        """Go on with the tables that are there, if this code has filled them up to `most` or less; or begin anew."""
        with self._database.transaction() as connection:
            position = tracked(connection, self._tracked_as)
            if position is None or position > most or not self._has_tables(connection):
                self.drop(connection)
                self._create_tables(connection)
                connection.execute(tracking.insert().values(name=self._tracked_as, position=0))
            self._staging.open(connection)
        self.position = position if position is not None and position <= most else 0

    def _create_tables(self, connection: Connection) -> None:
        """On PostgreSQL without indexes: one that is made later is made faster, and keeps nobody waiting there."""
        if self._database.is_sqlite:
            return self.projection.create_tables(connection)
        for table in self.projection.metadata.sorted_tables:
            connection.execute(CreateTable(table))
        self._staging.create(connection)

    def complete(self) -> None:
        """Write what was set aside, make the missing indexes, and let PostgreSQL know what is in the tables."""
        with self._database.transaction() as connection:
            self._staging.pour(connection)
        for table in self.projection.metadata.sorted_tables:
            with self._database.transaction() as connection:
                for index in table.indexes:
                    index.create(connection, checkfirst=True)
                if not self._database.is_sqlite:
                    connection.exec_driver_sql(f"ANALYZE {table.name}")

    def drop(self, connection: Connection) -> None:
        """With what was set aside, also by other code."""
        mine = tuple(self.projection.metadata.tables)
        for name in inspect(connection).get_table_names():
            if name.startswith(mine):
                connection.exec_driver_sql(f"DROP TABLE {name}")
        self.forget(connection)

    def forget(self, connection: Connection) -> None:
        """Remove its position, also what other code has left."""
        connection.execute(delete(tracking).where(tracking.c.name.startswith(self.name, autoescape=True)))

    def fold(self, until: int, report: Report) -> None:
        """Apply the events up to `until`, page by page. Raises `RebuildStopped` at one that does not go in.

        While the database takes one page the next is read, which on PostgreSQL is the work of another processor.
        """
        with _without_collecting(), self._database.reading() as reader, ThreadPoolExecutor(1) as ahead:
            left = plain_pages(reader, self.position, until, PAGE)
            coming = ahead.submit(_next_page, left)
            while (page := coming.result()).records:
                coming = ahead.submit(_next_page, left)
                self._commit(page)
                report(self.position, max(until, self.position))

    def fold_within(self, connection: Connection, until: int) -> int:
        """The same in the caller's transaction. The position reached, which is this shadow's once that is committed."""
        position = self.position
        for page in plain_pages(connection, position, until, PAGE):
            position = self._apply(connection, _Page.read(page), position)
        return position

    def _commit(self, page: "_Page") -> None:
        try:
            with self._database.transaction() as connection:
                self._hurry(connection)
                reached = self._apply(connection, page, self.position)
        except RebuildStopped:
            if len(page.records) == 1:
                raise
            for record in page.records:  # to find the one
                self._commit(_Page.read([record]))
        else:
            self.position = reached

    def _hurry(self, connection: Connection) -> None:
        """What is lost in a crash is folded again, so nobody waits for the disk on PostgreSQL."""
        if self._database.is_sqlite:
            connection.exec_driver_sql(f"PRAGMA cache_size = -{CACHE_KB}")
            connection.exec_driver_sql(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        else:
            connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
            connection.exec_driver_sql("SET LOCAL enable_hashjoin = off")
            connection.exec_driver_sql("SET LOCAL enable_mergejoin = off")

    def _apply(self, connection: Connection, page: "_Page", position: int) -> int:
        reached: int = page.records[-1][0]
        with _stopping(page.records[0][0]):
            for bulk, rows in self.projection.changes(page.facts()):
                self._staging.run(connection, bulk, rows)
        mine = (tracking.c.name == self._tracked_as) & (tracking.c.position == position)
        if connection.execute(update(tracking).where(mine).values(position=reached)).rowcount != 1:
            raise Superseded(f"Somebody else has moved the rebuild of {self.projection.name} on.")
        return reached

    def _has_tables(self, connection: Connection) -> bool:
        present = inspect(connection).get_table_names()
        return all(table in present for table in self.projection.metadata.tables)


class _Page(NamedTuple):
    """Records and the facts in them, or why they cannot be read."""

    records: Sequence[Any]
    read_as: Sequence[Entry] | Exception

    @classmethod
    def read(cls, records: Sequence[Any]) -> Self:
        try:
            return cls(records, plain_entries(records))
        except Exception as error:
            return cls(records, error)

    def facts(self) -> Sequence[Entry]:
        if isinstance(self.read_as, Exception):
            raise self.read_as
        return self.read_as


def _next_page(left: Iterator[Sequence[Any]]) -> _Page:
    return _Page.read(next(left, []))


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Facts hold no cycles; to look for some in each page takes a third of the time that it takes to read it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def _stopping(position: int) -> Iterator[None]:
    """A database that fails is that; whatever else goes wrong is a matter of the events from here on."""
    try:
        yield
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        raise RebuildStopped(position, error) from error


def is_shadow(name: str) -> bool:
    """Whether a tracking row is of a shadow: it follows nothing, and stays as it is after a rebuild was killed."""
    return f"{SUFFIX}{_BY}" in name


@cache
def code() -> str:
    """A digest of all that decides what a fold makes of the log."""
    sources = sorted(path for package in ("domain", "store", "projections") for path in (ROOT / package).glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
