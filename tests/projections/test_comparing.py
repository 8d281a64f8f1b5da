from typing import Any

import pytest
from sqlalchemy import Column, Connection, Table
from sqlalchemy.exc import DBAPIError

from domain.api_keys import NewApiKey
from domain.events import EndReason
from projections.comparing import count_differing, differing_rows
from projections.rebuild import PROJECTIONS, rebuild
from projections.shadow import SUFFIX
from tests.conftest import OpenService
from tests.projections.conftest import Drive
from tests.projections.driver import Driver, request, until

UUID_AS_TEXT = "'00000000-0000-0000-0000-0000000000ff'"
NOT_UTF_8 = "CAST(X'ff00' AS TEXT)"
LONG = f"'{'long ' * 2_000}'"
GARBAGE = ["NULL", "'abc'", "'\x1b[2J\n'", "-7", "99.9", "true", "false", UUID_AS_TEXT, NOT_UTF_8, "X'00'", LONG]
"""What SQLite lets any column hold, and PostgreSQL some."""


@pytest.fixture
def lived_in(open_service: OpenService, drive: Drive) -> Driver:
    """A row or more in each table of each read model, and nobody who follows the log."""
    driver = drive(open_service())
    driver.service.start()
    driver.sign_in()
    driver.ledger.invalidate_sessions(None, EndReason.REVOKE_ALL, request()).result(20)
    driver.ledger.create_api_key(NewApiKey("one", "front desk", (), b"digest"), request()).result(20)
    driver.erase("bob")
    driver.ledger.enrol_user("carol", request()).result(20)
    until(lambda: driver.tracked("audit.1") == driver.head())
    driver.service.follower.close()
    return driver


def test_whatever_a_column_holds_its_row_is_named(lived_in: Driver):
    with lived_in.service.database.transaction() as connection:
        for make in PROJECTIONS.values():
            for live, rebuilt in copied(connection, make):
                for column in live.c:
                    named = [is_named(connection, live, rebuilt, column, value) for value in GARBAGE]
                    assert any(named), column
        connection.rollback()


def test_rows_of_garbage_are_replaced(lived_in: Driver):
    database = lived_in.service.database
    for name, make in PROJECTIONS.items():
        with database.transaction() as connection:
            for column in [column for live in make().metadata.tables.values() for column in live.c]:
                assert [value for value in GARBAGE if alter(connection, column, value)], column
        assert not rebuild(database, make).identical, name
        assert rebuild(database, make).identical, name


def copied(connection: Connection, make: Any) -> list[tuple[Table, Table]]:
    """The live tables, each with another of the same rows."""
    fresh = make(SUFFIX)
    fresh.create_tables(connection)
    pairs = [(live, fresh.metadata.tables[f"{name}{SUFFIX}"]) for name, live in make().metadata.tables.items()]
    for live, rebuilt in pairs:
        assert connection.exec_driver_sql(f"INSERT INTO {rebuilt.name} SELECT * FROM {live.name}").rowcount
    return pairs


def alter(connection: Connection, column: Column[Any], value: str) -> bool:
    """Put this into a column of one row; False when the database refuses it, or when it is there already."""
    row = "rowid" if connection.dialect.name == "sqlite" else "ctid"
    one = f"{row} = (SELECT min({row}) FROM {column.table.name})"
    statement = (
        f"UPDATE {column.table.name} SET {column.name} = {value} WHERE {one} AND {column.name} IS DISTINCT FROM {value}"
    )
    try:
        with connection.begin_nested():
            return connection.exec_driver_sql(statement).rowcount > 0
    except DBAPIError:
        return False


def is_named(connection: Connection, live: Table, rebuilt: Table, column: Column[Any], value: str) -> bool:
    """Whether it could be put there; then the comparison says so, in a line that can be read."""
    with connection.begin_nested() as garbled:
        if taken := alter(connection, column, value):
            found = [*differing_rows(connection, live, rebuilt, 10)]
            assert len(found) == count_differing(connection, live, rebuilt) == 1 + column.primary_key
            assert column.primary_key or [*(found[0].live or ())] == [column.name]
            assert all(str(row).isprintable() and len(str(row)) < 1_000 for row in found)
        garbled.rollback()
    return taken
