"""Reads that may be long, for auditors: in a few threads, with connections of their own, each for a bounded time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from domain.errors import LedgerBusy
from store.database import Database, store_errors
from store.workers import Workers

WORKERS, WAITING = 4, 32
LONGEST_S = 5.0
STEPS = 20_000  # of SQLite's virtual machine, some milliseconds

T = TypeVar("T")


class LongReads:
    """Not for the event loop, which has `Reads` for what is bounded by one user's live sessions (D12)."""

    def __init__(self, database: Database) -> None:
        settings = {
            "statement_timeout": int(LONGEST_S * 1000),
            "plan_cache_mode": "force_custom_plan",  # a plan for any limit and any user would be one for none
            "enable_bitmapscan": "off",  # it would read and sort all of a user's events to show the last few
        }
        self._database = Database(database.url.render_as_string(hide_password=False), settings)
        self._workers = Workers(WORKERS, "long-reads")
        self._under_way = 0

    async def run(self, read: Callable[[Connection], T]) -> T:
        """What `read` makes of a read-only connection. Raises `LedgerBusy`, or `StoreUnavailable` if it is long."""
        if self._under_way >= WORKERS + WAITING:
            raise LedgerBusy("Too many long reads wait already.")
        self._under_way += 1
        try:
            return await self._workers.run(partial(self._read, read))
        finally:
            self._under_way -= 1

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection that a statement may use for so long."""
        with store_errors(), self._database.reading() as connection, _time_limit(connection):
            yield connection

    def close(self) -> None:
        self._workers.close()
        self._database.close()

    def _read(self, read: Callable[[Connection], T]) -> T:
        with self.connection() as connection:
            return read(connection)


@contextmanager
def _time_limit(connection: Connection) -> Iterator[None]:
    """SQLite has no limit of its own, so it is asked every few steps; PostgreSQL's is set where it is connected."""
    driver = connection.connection.dbapi_connection
    if connection.dialect.name != "sqlite" or driver is None:
        yield
        return
    over_at = time.monotonic() + LONGEST_S
    driver.set_progress_handler(lambda: time.monotonic() > over_at, STEPS)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)
