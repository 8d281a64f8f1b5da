"""One database, SQLite or PostgreSQL: its connections, and what each must promise before it is used."""

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

from eventsourcing.persistence import PersistenceError
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.pool import QueuePool

from domain.errors import StoreUnavailable

BUSY_TIMEOUT_MS = 5_000
UNANSWERED_MS = 5_000
CONNECT_TIMEOUT_S = 3  # also for a connection of a pool that has given out all
CUT_OFF_MS = 100


class Garbled(StoreUnavailable):
    """Something is stored that the store would not have written: SQLite takes any value in any column."""


def _uuid(value: bytes) -> UUID:
    try:
        return UUID(bytes=value)
    except ValueError as error:
        raise Garbled(f"The database is damaged: {value!r} stands where an id should.") from error


sqlite3.register_adapter(UUID, lambda value: value.bytes)
sqlite3.register_converter("UUID", _uuid)


class Database:
    """Two ways in: `transaction()` writes; `reading()` sees what is committed and never waits for a writer.

    Each raises `StoreUnavailable` when no connection of its pool becomes free in time.
    """

    def __init__(self, url: str, settings: Mapping[str, Any] = MappingProxyType({})) -> None:
        """`settings`: of PostgreSQL, for those who read."""
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            self._writer, self._reader = _sqlite_writer(self.path), _sqlite_reader(self.path)
        else:
            self._writer, self._reader = _postgresql(url), _postgresql(url, settings, read_only=True)

    @property
    def path(self) -> Path:
        """The file of a SQLite database."""
        assert self.url.database
        return Path(self.url.database)

    def libpq(self) -> dict[str, Any]:
        """How to connect to PostgreSQL without SQLAlchemy; of several hosts, the one that answers."""
        _, arguments = self._reader.dialect.create_connect_args(self.url)
        return {**arguments, **_LIBPQ}

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A write transaction, committed at the end of the block. On SQLite it holds the write lock from its start."""
        with _connected(self._writer) as connection, connection.begin():
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read-only connection in autocommit: each statement sees what was committed when it began."""
        with _connected(self._reader) as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A read-only transaction: all its statements see what was committed when the first of them began."""
        with _connected(self._reader) as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN")
            else:
                connection.execution_options(isolation_level="REPEATABLE READ")
            try:
                yield connection
            finally:
                connection.exec_driver_sql("ROLLBACK")

    def must_exist(self) -> None:
        """Raise `StoreUnavailable` for a SQLite file that is not there, which would otherwise be made."""
        if self.is_sqlite and not self.path.is_file():
            raise StoreUnavailable(f"There is no database at {self.path}.")

    def discard_connections(self) -> None:
        """Drop pooled connections, which a restart of the database has made useless."""
        self._writer.dispose()
        self._reader.dispose()

    def forget_deleted(self, *, waits: bool = True) -> None:
        """Leave nothing in the files of SQLite of what was deleted; on PostgreSQL it takes a VACUUM, and more.

        SQLite overwrites what is deleted (`secure_delete`), but its write-ahead log has the pages as they were before
        until it is cut off. Readers who are at work are waited for, without holding writers up for long; not at all
        when it `waits` for nobody. Raises `StoreUnavailable` when they are at work still.
        """
        if not self.is_sqlite:
            return
        give_up = time.monotonic() + (BUSY_TIMEOUT_MS / 1000 if waits else 0)
        with closing(_connect_sqlite(f"file:{_uri(self.path)}?mode=rw")) as connection:
            connection.execute(f"PRAGMA busy_timeout = {CUT_OFF_MS if waits else 0}")
            while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                if time.monotonic() >= give_up:
                    raise StoreUnavailable(f"Somebody reads {self.path}: what was deleted is still in its WAL.")
                time.sleep(CUT_OFF_MS / 1000)

    def close(self) -> None:
        self.discard_connections()

    def check_durability(self) -> None:
        """Refuse a database that may lose what it acknowledged (LOG-04). SQLite's part is asserted per connection."""
        if self.is_sqlite:
            return
        wanted = {
            "fsync": {"on"},
            "full_page_writes": {"on"},
            "data_sync_retry": {"off"},
            "synchronous_commit": {"on", "remote_apply"},
        }
        with self.reading() as connection:
            for name, values in wanted.items():
                value = connection.exec_driver_sql(f"SHOW {name}").scalar_one()
                if value not in values:
                    raise StoreUnavailable(f"PostgreSQL runs with {name} = {value}; {' or '.join(values)} is needed.")


def _connected(engine: Engine) -> Connection:
    try:
        return engine.connect()
    except NoConnectionFree as error:
        raise StoreUnavailable(f"All connections to the store are in use, for {CONNECT_TIMEOUT_S} s.") from error


@contextmanager
def store_errors() -> Iterator[None]:
    """Say `StoreUnavailable` where the driver, or the library for it, says that the database failed."""
    try:
        yield
    except (DBAPIError, PersistenceError, sqlite3.Error) as error:
        raise StoreUnavailable(f"The store does not answer or cannot write: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """What the driver says; PostgreSQL names values only below."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return next(iter(str(cause).splitlines()), type(cause).__name__)


def _sqlite_writer(path: Path) -> Engine:
    def connect() -> sqlite3.Connection:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _connect_sqlite(f"file:{_uri(path)}?mode=rwc")

    engine = create_engine(
        "sqlite://",
        creator=connect,
        poolclass=QueuePool,
        pool_size=2,
        max_overflow=8,
        pool_timeout=CONNECT_TIMEOUT_S,
        hide_parameters=True,
    )

    @event.listens_for(engine, "begin")
    def take_the_write_lock(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _sqlite_reader(path: Path) -> Engine:
    return create_engine(
        "sqlite://",
        creator=lambda: connect_sqlite_reader(path),
        poolclass=QueuePool,
        pool_size=4,
        max_overflow=16,
        pool_timeout=CONNECT_TIMEOUT_S,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
    )


def connect_sqlite_reader(path: Path, *, converted: bool = True) -> sqlite3.Connection:
    """A read-only connection of its own, outside any pool. Not converted, a stream is bytes."""
    return _connect_sqlite(f"file:{_uri(path)}?mode=ro", sqlite3.PARSE_DECLTYPES if converted else 0)


def read_any_text(connection: Connection) -> None:
    """From now on text that is not UTF-8 is read too, as escapes; on PostgreSQL there is none."""
    if isinstance(file := connection.connection.driver_connection, sqlite3.Connection):
        file.text_factory = lambda text: text.decode(errors="backslashreplace")


def _uri(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _connect_sqlite(uri: str, detect_types: int = sqlite3.PARSE_DECLTYPES) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri,
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_TIMEOUT_MS / 1000,
        detect_types=detect_types,
        cached_statements=512,
    )
    if "mode=ro" not in uri:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        _require(connection, "journal_mode", "wal")
        _require(connection, "synchronous", 2)
        _require(connection, "secure_delete", 1)
    return connection


def _require(connection: sqlite3.Connection, pragma: str, wanted: Any) -> None:
    value = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
    if value != wanted:
        raise StoreUnavailable(f"SQLite runs with {pragma} = {value}; {wanted} is needed.")


# Seconds after which PostgreSQL, or the way to it, counts as down. A held append lock is a write that cannot be made.
_LIBPQ = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": UNANSWERED_MS,
    "target_session_attrs": "primary",  # a standby does not know yet what was revoked a moment ago
    "application_name": "session-ledger",
}


def _postgresql(url: str, settings: Mapping[str, Any] = MappingProxyType({}), *, read_only: bool = False) -> Engine:
    engine = create_engine(
        url,
        pool_size=4,
        max_overflow=8,
        pool_timeout=CONNECT_TIMEOUT_S,
        hide_parameters=True,
        connect_args={**_LIBPQ, "prepare_threshold": 1},
        **({"isolation_level": "AUTOCOMMIT"} if read_only else {}),
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {BUSY_TIMEOUT_MS}")
            cursor.execute(f"SET idle_in_transaction_session_timeout = {2 * UNANSWERED_MS}")
            cursor.execute(f"SET default_transaction_read_only = {'on' if read_only else 'off'}")
            for name, value in settings.items():
                cursor.execute(f"SET {name} = {value}")
        connection.commit()

    return engine
