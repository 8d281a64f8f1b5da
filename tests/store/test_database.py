"""What a database must promise before it is used, and that readers and the writer stay out of each other's way."""

from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from domain.errors import StoreUnavailable
from store.database import Database, _connect_sqlite, store_errors
from tests.postgres import Database as Place
from tests.postgres import PostgresCluster, Schema

SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def opened(database: Place) -> Iterator[Database]:
    opened = Database(database.url)
    with opened.transaction() as transaction:
        transaction.execute(text("CREATE TABLE notes (note text)"))
        transaction.execute(text("INSERT INTO notes VALUES ('committed')"))
    yield opened
    opened.close()


def notes(connection) -> list[str]:
    return list(connection.execute(text("SELECT note FROM notes ORDER BY note")).scalars())


@SQLITE
def test_each_pooled_connection_of_sqlite_writes_durably(opened: Database):
    connections = [opened._writer.raw_connection() for _ in range(5)]
    for connection in connections:
        cursor = connection.cursor()
        assert cursor.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert cursor.execute("PRAGMA synchronous").fetchone() == (2,)
    for connection in connections:
        connection.close()


def test_a_sqlite_that_cannot_keep_a_write_ahead_log_is_refused(tmp_path):
    with pytest.raises(StoreUnavailable, match="journal_mode = delete; wal is needed"):
        _connect_sqlite(f"file:{tmp_path}/ledger.db?mode=rwc&vfs=unix-dotfile")


def test_a_database_that_keeps_what_it_acknowledged_is_taken(opened: Database):
    opened.check_durability()


@pytest.mark.parametrize("value", ["off", "local", "remote_write"])
def test_a_role_that_does_not_wait_for_the_disk_is_refused(
    postgres_cluster: PostgresCluster, postgres_schema: Schema, value: str
):
    postgres_cluster.execute(f"ALTER ROLE ledger_app SET synchronous_commit = {value}")
    try:
        database = Database(postgres_schema.app_url)
        with pytest.raises(StoreUnavailable, match=f"synchronous_commit = {value}"):
            database.check_durability()
        database.close()
    finally:
        postgres_cluster.execute("ALTER ROLE ledger_app RESET synchronous_commit")


@pytest.mark.parametrize(("name", "value"), [("fsync", "off"), ("full_page_writes", "off"), ("data_sync_retry", "on")])
def test_a_server_that_may_lose_a_commit_is_refused(
    postgres_cluster: PostgresCluster, postgres_schema: Schema, name: str, value: str
):
    database = Database(postgres_schema.app_url)
    try:
        restart(postgres_cluster, f"ALTER SYSTEM SET {name} = {value}")
        with pytest.raises(StoreUnavailable, match=f"{name} = {value}"):
            database.check_durability()
    finally:
        restart(postgres_cluster, f"ALTER SYSTEM RESET {name}")
    database.close()


def restart(cluster: PostgresCluster, changed: str) -> None:
    cluster.execute(changed)
    cluster.stop()
    cluster.start()


def test_a_read_answers_while_a_write_transaction_is_open_and_sees_what_is_committed(opened: Database):
    with opened.transaction() as transaction:
        transaction.execute(text("INSERT INTO notes VALUES ('uncommitted')"))
        with opened.reading() as connection:
            assert notes(connection) == ["committed"]
    with opened.reading() as connection:
        assert notes(connection) == ["committed", "uncommitted"]


def test_each_statement_of_a_read_sees_what_was_committed_when_it_began(opened: Database):
    with opened.reading() as connection:
        assert notes(connection) == ["committed"]
        with opened.transaction() as transaction:
            transaction.execute(text("INSERT INTO notes VALUES ('later')"))
        assert notes(connection) == ["committed", "later"]


def test_reads_take_no_lock_that_a_write_would_wait_for(opened: Database):
    with opened.reading() as first, opened.reading() as second:
        assert notes(first) == notes(second) == ["committed"]
        with opened.transaction() as transaction:
            transaction.execute(text("DELETE FROM notes"))
    with opened.reading() as connection:
        assert notes(connection) == []


@SQLITE
def test_a_reader_of_sqlite_cannot_write(opened: Database):
    with pytest.raises(DBAPIError, match="readonly"), opened.reading() as connection:
        connection.execute(text("INSERT INTO notes VALUES ('smuggled')"))


@SQLITE
def test_a_write_transaction_of_sqlite_holds_the_write_lock_from_its_start(database: Place, opened: Database):
    other = _connect_sqlite(f"file:{opened.path}?mode=rw")
    other.execute("PRAGMA busy_timeout = 0")
    with opened.transaction(), pytest.raises(Exception, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")
    other.close()


def test_a_transaction_that_fails_leaves_nothing(opened: Database):
    with pytest.raises(ZeroDivisionError), opened.transaction() as transaction:
        transaction.execute(text("INSERT INTO notes VALUES ('half')"))
        raise ZeroDivisionError
    with opened.reading() as connection:
        assert notes(connection) == ["committed"]


def test_a_pool_without_a_free_connection_is_a_store_that_is_unavailable_soon(
    database: Place, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("store.database.CONNECT_TIMEOUT_S", 0.05)
    with closing(Database(database.url)) as opened, opened.transaction():  # which makes the file
        exhaust(opened)


@SQLITE
def test_what_a_database_says_is_told(opened: Database):
    told = pytest.raises(StoreUnavailable, match=r"cannot write: no such table: nowhere$")
    with told, store_errors(), opened.reading() as connection:
        connection.execute(text("SELECT 1 FROM nowhere"))


def exhaust(opened: Database) -> None:
    with ExitStack() as held, pytest.raises(StoreUnavailable):
        for _ in range(100):
            with store_errors():
                held.enter_context(opened.reading())


def test_connections_that_a_restart_made_useless_can_be_discarded(
    postgres_cluster: PostgresCluster, postgres_schema: Schema
):
    database = Database(postgres_schema.app_url)
    with database.reading() as connection:
        connection.execute(text("SELECT 1"))
    postgres_cluster.stop()
    postgres_cluster.start()
    database.discard_connections()
    with database.reading() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    database.close()
