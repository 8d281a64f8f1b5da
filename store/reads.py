"""Reads for the event loop: SQLite answers in microseconds on the loop itself, PostgreSQL through an async pool.

A read sees what was committed when it began, so one that starts after a commit was acknowledged sees that commit.
"""

import asyncio
import sqlite3
from collections.abc import Sequence
from typing import Any, TypeVar

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from sqlalchemy import Select
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import psycopg as postgresql

from domain.errors import StoreUnavailable
from store.database import CONNECT_TIMEOUT_S, Database, connect_sqlite_reader

POOL_SIZE = 8
STATEMENT_TIMEOUT_MS = 5_000
PATIENCE_S = 8.0

Rows = list[tuple[Any, ...]]
T = TypeVar("T")


class Query:
    """A statement compiled once. Rows come as the driver gives them: UUIDs, ints, bytes and text alike on both."""

    def __init__(self, statement: Select[Any]) -> None:
        self._statement = statement
        self._compiled: dict[bool, tuple[str, dict[str, Any]]] = {}

    def sql(self, *, for_sqlite: bool) -> tuple[str, dict[str, Any]]:
        if for_sqlite not in self._compiled:
            dialect = sqlite.dialect(paramstyle="named") if for_sqlite else postgresql.dialect()  # type: ignore[no-untyped-call]
            compiled = self._statement.compile(dialect=dialect)
            self._compiled[for_sqlite] = str(compiled), dict(compiled.params)
        return self._compiled[for_sqlite]


class Reads:
    """Asynchronous, read-only. Raises `StoreUnavailable` when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._sqlite = connect_sqlite_reader(database.path) if database.is_sqlite else None
        self._pool = None if database.is_sqlite else _pool(database)

    async def open(self) -> None:
        if self._pool:
            await self._pool.open()

    async def close(self) -> None:
        if self._pool:
            await self._pool.close()
        if self._sqlite:
            self._sqlite.close()

    async def rows(self, query: Query, **values: Any) -> Rows:
        sql, constants = query.sql(for_sqlite=self._sqlite is not None)
        return await self._fetch(sql, {**constants, **values})

    async def _fetch(self, sql: str, values: dict[str, Any]) -> Rows:
        if self._sqlite:
            try:
                return self._sqlite.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise StoreUnavailable("The store does not answer.") from error
        fetching = asyncio.ensure_future(self._fetch_from_pool(sql, values))
        done, _ = await asyncio.wait({fetching}, timeout=PATIENCE_S)
        if not done:
            fetching.cancel()  # which a server that is stopped does not even notice, so nobody waits for it
            raise StoreUnavailable("The store does not answer in time.")
        return fetching.result()

    async def _fetch_from_pool(self, sql: str, values: dict[str, Any]) -> Rows:
        assert self._pool
        try:
            return await _fetch_from(self._pool, sql, values)
        except PoolTimeout as error:
            raise StoreUnavailable("The store does not answer.") from error
        except psycopg.OperationalError:
            await self._pool.check()  # a restart of the database leaves dead connections behind
        except psycopg.Error as error:
            raise StoreUnavailable("The store does not answer.") from error
        try:
            return await _fetch_from(self._pool, sql, values)
        except psycopg.Error as error:
            raise StoreUnavailable("The store does not answer.") from error


def padded(name: str, values: Sequence[T]) -> dict[str, T]:
    """`name0`, `name1`, …: the values, the last one repeated up to a power of two: few sizes, few statements."""
    size = 1 << (len(values) - 1).bit_length()
    return {f"{name}{i}": values[min(i, len(values) - 1)] for i in range(size)}


async def _fetch_from(pool: AsyncConnectionPool[Any], sql: str, values: dict[str, Any]) -> Rows:
    async with pool.connection() as connection:
        cursor = await connection.execute(sql, values)
        rows: Rows = await cursor.fetchall()
        return rows


def _pool(database: Database) -> AsyncConnectionPool[Any]:
    async def configure(connection: psycopg.AsyncConnection[Any]) -> None:
        await connection.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}")

    return AsyncConnectionPool(
        kwargs={**database.libpq(), "autocommit": True, "prepare_threshold": 1},
        configure=configure,
        min_size=1,
        max_size=POOL_SIZE,
        timeout=CONNECT_TIMEOUT_S,
        reconnect_timeout=CONNECT_TIMEOUT_S,
        open=False,
    )
