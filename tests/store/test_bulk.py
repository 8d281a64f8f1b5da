"""One statement for many rows: the same outcome on both databases."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Boolean, Column, LargeBinary, MetaData, Table, Text, select

from api.service import Service
from store.bulk import delete_many, insert_many, update_many
from store.schema import Id, Micros

metadata = MetaData()
things = Table(
    "things",
    metadata,
    Column("thing", Id, primary_key=True),
    Column("at", Micros, nullable=False),
    Column("is_good", Boolean, nullable=False),
    Column("name", Text),
    Column("state", LargeBinary),
)
A, B, C = uuid4(), uuid4(), uuid4()
ROWS: list[tuple[Any, ...]] = [
    (A, 2**60, True, "é\u2028'\"", b"\x00\xff"),
    (B, 0, False, None, None),
    (C, 1, True, 'NULL, {"a\\b"}', b""),
]


@pytest.fixture
def filled(service: Service) -> Service:
    with service.database.transaction() as connection:
        metadata.create_all(connection)
        insert_many(things).run(connection, ROWS)
    return service


def rows(service: Service) -> dict[UUID, tuple[Any, ...]]:
    with service.database.reading() as connection:
        return {row.thing: tuple(row) for row in connection.execute(select(things))}


def test_rows_come_back_as_they_were(filled: Service):
    assert rows(filled) == {row[0]: row for row in ROWS}


def test_only_the_rows_that_are_named_change_and_only_in_what_is_named(filled: Service):
    with filled.database.transaction() as connection:
        update_many(things.c.thing, things.c.name, things.c.at).run(connection, [("new", 7, A), (None, 8, C)])
    assert rows(filled) == {A: (A, 7, True, "new", b"\x00\xff"), B: ROWS[1], C: (C, 8, True, None, b"")}


def test_of_two_rows_with_one_key_the_last_one_counts(filled: Service):
    with filled.database.transaction() as connection:
        update_many(things.c.thing, things.c.at).run(connection, [(5, A), (6, B), (9, A)])
    assert [rows(filled)[key][1] for key in (A, B, C)] == [9, 6, 1]


def test_rows_are_deleted_by_their_keys_in_any_form_of_an_id(filled: Service):
    with filled.database.transaction() as connection:
        for key in (A, B.bytes, uuid4().hex):
            delete_many(things.c.thing).run(connection, [(key,)])
    assert rows(filled) == {C: ROWS[2]}


def test_a_key_that_is_not_there_and_no_rows_at_all_change_nothing(filled: Service):
    with filled.database.transaction() as connection:
        update_many(things.c.thing, things.c.at).run(connection, [(5, uuid4())])
        update_many(things.c.thing, things.c.at).run(connection, [])
        insert_many(things).run(connection, [])
    assert rows(filled) == {row[0]: row for row in ROWS}


def test_one_row_that_cannot_be_inserted_refuses_all(filled: Service):
    with pytest.raises(Exception, match=r"(?i)unique"), filled.database.transaction() as connection:
        insert_many(things).run(connection, [(uuid4(), 1, True, "", b""), ROWS[0]])
    assert len(rows(filled)) == 3
