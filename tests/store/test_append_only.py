"""The log takes the next position of a new version, and nothing else. Tried as the service's own role."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from api.service import Service
from domain.errors import StoreUnavailable
from store.database import Database
from tests.store.given import stored, whole

STREAM, OTHER = uuid4(), uuid4()
REFUSED = (
    "append-only|next position|events_pkey|null value|says what the last|is kept|one row"
    "|permission denied|must be owner"
)
SQLITE, POSTGRESQL = (pytest.mark.parametrize("database", [kind], indirect=True) for kind in ("sqlite", "postgresql"))


@pytest.fixture
def log(service: Service) -> Database:
    """Three events of one stream, and the way that the service has to them."""
    service.recorder.insert_events([stored(STREAM, version) for version in (1, 2, 3)])
    return service.database


def run(log: Database, *statements: str) -> None:
    """`{row:4,4}` is the row of `STREAM` with that position and version; `{other:…}` one of another stream."""
    with log.transaction() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement.format(row=Row(log, STREAM), other=Row(log, OTHER)).replace("%", "%%"))


class Row:
    def __init__(self, log: Database, stream: object) -> None:
        self.stream = f"x'{stream.hex}'" if log.is_sqlite else f"'{stream}'"
        self.state = "x'00'" if log.is_sqlite else r"'\x00'"

    def __format__(self, place: str) -> str:
        position, version = place.split(",")
        return f"({position}, {version}, {self.stream}, 'Forged', {self.state}, {LATER})"


LATER = 4_102_444_800_000_000  # 2100
INSERT = "INSERT INTO events (position, version, stream, topic, state, recorded_at) VALUES "


@contextmanager
def nothing_changes(log: Database) -> Iterator[None]:
    before = whole(log)
    assert len(before[0]) == 3
    yield
    assert whole(log) == before


def refused(log: Database, *statements: str) -> None:
    with nothing_changes(log), pytest.raises(DBAPIError, match=REFUSED):
        run(log, *statements)


@pytest.mark.parametrize("rows", ["{row:4,4}", "{other:4,1}", "{row:4,4}, {row:5,5}"])
def test_the_next_positions_of_new_versions_are_taken(log: Database, rows: str):
    run(log, INSERT + rows)
    events, [head] = whole(log)
    assert [row.position for row in events] == list(range(1, 4 + rows.count("{")))
    assert (head.position, head.recorded_at) == (events[-1].position, LATER)


def test_a_time_before_that_of_the_last_event_is_refused(log: Database):
    with nothing_changes(log), pytest.raises(DBAPIError, match="next position"):
        run(log, f"{INSERT}{Row(log, STREAM):4,4}".replace(str(LATER), "1"))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE events SET state = state",
        "UPDATE events SET recorded_at = 0 WHERE position = 3",
        "UPDATE events SET position = position + 1 WHERE position = 3",
        "DELETE FROM events",
        "DELETE FROM events WHERE position = 3",
    ],
)
def test_a_row_is_neither_changed_nor_deleted(log: Database, change: str):
    refused(log, change)


@pytest.mark.parametrize(
    "rows",
    [
        "{row:5,4}",
        "{row:4,4}, {row:6,5}",
        "{row:5,5}, {row:7,4}",
        "{row:3,4}",
        "{row:1,4}",
        "{row:3,4}, {row:4,5}",
        "{row:0,4}",
        "{row:-1,4}",
        "{row:NULL,4}",
    ],
)
def test_a_gap_and_a_position_that_is_there_are_refused(log: Database, rows: str):
    refused(log, INSERT + rows)


@pytest.mark.parametrize("rows", ["{row:4,3}", "{row:4,1}", "{other:4,1}, {row:5,3}", "{other:4,1}, {other:5,1}"])
def test_a_version_that_is_there_is_refused(log: Database, rows: str):
    with nothing_changes(log), pytest.raises(DBAPIError, match=r"next position of a new version|events_stream_version"):
        run(log, INSERT + rows)


@pytest.mark.parametrize("rows", ["{row:2,1}", "{row:2,1}, {row:3,2}", "{row:0,1}"])
def test_the_first_position_is_one(service: Service, rows: str):
    with pytest.raises(DBAPIError, match=REFUSED):
        run(service.database, INSERT + rows)
    assert whole(service.database)[0] == []


@pytest.mark.parametrize("conflict", ["(position)", "(stream, version)"])
def test_an_upsert_is_refused(log: Database, conflict: str):
    for row in ("{row:3,3}", "{row:4,3}", "{row:3,4}"):
        refused(log, f"{INSERT} {row} ON CONFLICT {conflict} DO UPDATE SET state = excluded.state")


@pytest.mark.parametrize("row", ["{row:3,3}", "{row:4,3}", "{row:3,4}"])
def test_an_insert_that_ignores_conflicts_adds_nothing(log: Database, row: str):
    with nothing_changes(log):
        try:
            run(log, f"{INSERT} {row} ON CONFLICT DO NOTHING")
        except DBAPIError:
            assert log.is_sqlite


@pytest.mark.parametrize("order", ["{row:5,5}, {row:4,4}", "{row:6,6}, {row:4,4}, {row:5,5}"])
@SQLITE
def test_rows_of_one_statement_come_in_order(log: Database, order: str):
    refused(log, INSERT + order)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE head SET position = 2",
        "UPDATE head SET position = 0, recorded_at = 0",
        "UPDATE head SET recorded_at = recorded_at - 1",
        "UPDATE head SET position = 4",
        "UPDATE head SET recorded_at = recorded_at + 1",
        "DELETE FROM head",
        "INSERT INTO head (one, position, recorded_at) VALUES (2, 9, 9)",
        "INSERT INTO head (one, position, recorded_at) VALUES (1, 0, 0) ON CONFLICT (one) DO UPDATE SET position = 0",
    ],
)
def test_the_head_is_one_row_that_says_what_the_last_event_says(log: Database, change: str):
    refused(log, change)


@pytest.mark.parametrize("recursive", ["ON", "OFF"])
@pytest.mark.parametrize("verb", ["REPLACE", "INSERT OR REPLACE", "INSERT OR IGNORE", "INSERT OR ROLLBACK"])
@SQLITE
def test_a_replacing_insert_is_refused_whether_or_not_triggers_recurse(log: Database, verb: str, recursive: str):
    insert = INSERT.replace("INSERT", verb, 1)
    for row in ("{row:3,3}", "{row:4,3}", "{row:3,4}", "{row:2,4}", "{row:5,4}", "{row:NULL,4}"):
        refused(log, f"PRAGMA recursive_triggers = {recursive}", insert + row)


@SQLITE
def test_the_head_is_not_replaced(log: Database):
    refused(log, "REPLACE INTO head (one, position, recorded_at) VALUES (1, 0, 0)")
    refused(log, "UPDATE OR REPLACE head SET position = 0")


@SQLITE
def test_another_program_is_refused_too(log: Database):
    with nothing_changes(log), sqlite3.connect(log.path) as connection:
        for change in ("UPDATE events SET topic = ''", "DELETE FROM events", "UPDATE events SET rowid = 9"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(change)


@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE events",
        "TRUNCATE events CASCADE",
        "TRUNCATE head",
        "ALTER TABLE events DISABLE TRIGGER ALL",
        "ALTER TABLE events DISABLE TRIGGER events_next_only",
        "ALTER TABLE events ADD COLUMN note text",
        "ALTER TABLE events OWNER TO ledger_app",
        "DROP TRIGGER events_no_change ON events",
        "DROP TRIGGER head_says_the_last ON head",
        "DROP TABLE events CASCADE",
        "DROP FUNCTION events_append_only() CASCADE",
        "ALTER FUNCTION events_next_only() RESET ALL",
        "CREATE OR REPLACE FUNCTION events_append_only() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE TRIGGER a BEFORE INSERT ON events EXECUTE FUNCTION events_append_only()",
        "CREATE RULE a AS ON UPDATE TO events DO INSTEAD NOTHING",
        "SET session_replication_role = replica",
        "SET ROLE ledger_owner",
        "GRANT UPDATE ON events TO ledger_app",
        "MERGE INTO events USING head ON events.position = 3 WHEN MATCHED THEN DELETE",
        "MERGE INTO events USING head ON events.position = 3 WHEN MATCHED THEN UPDATE SET topic = ''",
    ],
)
@POSTGRESQL
def test_the_apps_role_cannot_get_round_the_triggers(log: Database, statement: str):
    with nothing_changes(log), pytest.raises(DBAPIError, match=REFUSED):
        run(log, statement, "UPDATE events SET topic = ''")  # the second, where the first one only warns


@POSTGRESQL
def test_a_copy_with_a_gap_is_refused(log: Database):
    url = log.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with (
        nothing_changes(log),
        psycopg.connect(url) as connection,
        pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="next position"),
        connection.cursor().copy(
            "COPY events (position, version, stream, topic, state, recorded_at) FROM STDIN"
        ) as rows,
    ):
        rows.write_row((5, 4, STREAM, "Forged", b"", LATER))


@POSTGRESQL
def test_a_temporary_table_of_the_same_name_opens_no_gap(log: Database):
    schema = log.url.query["options"].removeprefix("-csearch_path=")
    refused(
        log,
        "CREATE TEMPORARY TABLE events (position bigint)",
        "INSERT INTO pg_temp.events VALUES (8), (9)",
        INSERT.replace("events", f"{schema}.events") + "{row:9,4}",
    )


@pytest.mark.parametrize("change", ["UPDATE events SET topic = ''", "DELETE FROM events", "TRUNCATE events"])
@POSTGRESQL
def test_the_owner_too_is_refused_while_the_triggers_stand(log: Database, database, change: str):
    owner = Database(database.owner_url)
    with nothing_changes(log), pytest.raises(DBAPIError, match="append-only"):
        run(owner, change)
    owner.close()


SWALLOWING = {
    "sqlite": [
        "CREATE TRIGGER evil BEFORE INSERT ON events WHEN NEW.topic = 'Sign-out' BEGIN SELECT RAISE(IGNORE); END"
    ],
    "postgresql": [
        "CREATE FUNCTION evil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
        "CREATE TRIGGER e BEFORE INSERT ON events FOR EACH ROW WHEN (NEW.topic = 'Sign-out') EXECUTE FUNCTION evil()",
    ],
}


def test_what_the_owner_lets_a_trigger_swallow_is_not_acknowledged(service: Service, log: Database, database):
    owner = Database(database.owner_url or database.url)
    run(owner, *SWALLOWING[database.kind])
    owner.close()
    kept, swallowed = stored(STREAM, 4), replace(stored(OTHER, 1), topic="Sign-out")
    with nothing_changes(log), pytest.raises(StoreUnavailable, match="does not take"):
        service.recorder.insert_events([kept, swallowed])
    service.recorder.insert_events([kept])
