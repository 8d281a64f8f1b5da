"""Whatever is changed in the log of 300 events, by whoever may do anything to it, is found and named."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from uuid import uuid4

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select

from api.service import Service
from domain.errors import StoreUnavailable
from domain.events import ClientDetails
from domain.session import Session
from store import pieces, versions
from store.checking import Finding
from store.database import Database as Store
from store.notes import Signer
from store.raw_log import COLUMNS
from store.schema import bindings, checkpoints, tiles
from store.signing import SigningKey
from store.tree import discard, grow
from store.verifying import Report, Signed, verify_log
from tests.clock import ManualClock
from tests.postgres import Database
from tests.store.given import Caller, request, result
from tests.store.tampering import Tampering

EVENTS = 300
SEALED = (100, 180, EVENTS)


@pytest.fixture
def log(service: Service, caller: Caller, clock: ManualClock) -> Service:
    """300 events of ten users, sealed three times."""
    sessions: dict[str, Session] = {}

    def creates(user_id: str) -> None:
        client = ClientDetails("203.0.113.7", "curl/8") if user_id > "user 4" else None
        sessions[user_id] = result(caller.creates(user_id, client=client))

    acts = [
        creates,
        lambda u: caller.touches(sessions[u], u).result(),
        lambda u: caller.revokes(sessions[u], u).result(),
    ]
    story = [*[lambda u: service.ledger.enrol_user(u, request()).result()], *acts * 10]
    calls = [(act, f"user {number}") for act in story for number in range(10)]
    for position, (act, user_id) in enumerate(calls[:EVENTS], start=1):
        clock.advance(61)
        act(user_id)
        if position in SEALED:
            service.sealer.seal()
    return service


@pytest.fixture
def few(service: Service, caller: Caller) -> Service:
    """Two events, which are sealed."""
    result(caller.creates())
    service.sealer.seal()
    return service


@pytest.fixture
def owner(service: Service, database: Database) -> Iterator[Tampering]:
    tampering = Tampering(database)
    yield tampering
    tampering.close()


def verified(log: Service, **how: int) -> Report:
    """As it is done with the public key and the signer's memory."""
    key: SigningKey = log.signing_key
    memory = key.remembered()
    return verify_log(log.database, key.verifier, [Signed(memory.size, memory.root, "the signer's memory")], **how)


def named(log: Service) -> list[int]:
    """The positions of what is wrong, once each."""
    return list(dict.fromkeys(finding.position for finding in verified(log).findings))


def test_a_log_that_nobody_altered_is_intact(log: Service):
    assert verified(log) == Report(EVENTS, EVENTS, 3, [], 0, [])
    assert verified(log).is_intact


def test_what_is_newer_than_the_last_checkpoint_is_counted(log: Service, caller: Caller):
    result(caller.creates("somebody"))
    report = verified(log)
    assert (report.is_intact, report.events, report.sealed) == (True, EVENTS + 2, EVENTS)


# -- every column of every row


def others(owner: Tampering, row: tuple) -> dict[str, object]:
    """Something else for each column that could well stand there."""
    position, _, version, recorded_at, topic, state = row
    return {
        "position": position + 1_000,
        "stream": owner.stream(7),
        "version": version + 1_000,
        "recorded_at": recorded_at + 1,
        "topic": "UserEnabled" if topic != "UserEnabled" else "UserDisabled",
        "state": state.replace(b"1", b"2", 1),
    }


@pytest.mark.parametrize("column", COLUMNS)
def test_each_row_whose_column_is_changed_is_named(log: Service, owner: Tampering, column: str):
    for row in owner.rows():
        with owner.changed(row[0], column, others(owner, row)[column]):
            assert named(log)[0] == row[0], (column, row)
    assert verified(log).is_intact


def test_each_row_that_is_deleted_is_named(log: Service, owner: Tampering):
    for position in range(1, EVENTS + 1):
        with owner.without(position):
            assert named(log)[0] == position
    assert verified(log).is_intact


def test_each_two_rows_that_are_swapped_are_named(log: Service, owner: Tampering):
    for position in range(1, EVENTS):
        with owner.swapped(position, position + 1):
            assert {position, position + 1} <= set(named(log)), position
    assert verified(log).is_intact


def test_each_row_that_is_inserted_is_named(log: Service, owner: Tampering):
    for number, row in enumerate(owner.rows()[::7]):
        for position in (-number, EVENTS + 1 + number, 2**62):
            forged = (position, owner.stream(8), 1, *row[3:])
            with owner.inserted(forged):
                assert named(log)[0] == min(position, EVENTS + 1), position
    assert verified(log).is_intact


def test_a_row_that_is_inserted_between_two_others_is_named(log: Service, owner: Tampering):
    """All that follow move one on."""
    last = owner.rows()[-1]
    for position in range(EVENTS, 150, -1):
        owner.set(position, "position", position + 1)
    owner.insert((151, owner.stream(8), 1, *owner.rows()[149][3:]))
    owner.run("UPDATE head SET position = ?", EVENTS + 1)
    assert last[0] == EVENTS
    assert named(log)[0] == 151


@pytest.mark.parametrize("tables", [(), ("checkpoints",), ("checkpoints", "tiles")], ids=str)
def test_a_log_that_is_cut_short_is_found(log: Service, owner: Tampering, tables: tuple[str, ...]):
    """Also when head and the checkpoints are cut with it: the signer remembers."""
    for table in tables:
        with log.database.transaction() as connection:
            connection.exec_driver_sql(f"DELETE FROM {table}")
    for keep in range(EVENTS - 1, -1, -23):
        owner.run("DELETE FROM events WHERE position > ?", keep)
        [at] = owner.run("SELECT recorded_at FROM events WHERE position = ?", keep) or [(0,)]
        owner.run("UPDATE head SET position = ?, recorded_at = ?", keep, at[0])
        assert named(log)[0] == keep + 1


# -- what is beside the events


def test_head_must_agree_with_the_last_event(log: Service, owner: Tampering):
    [(one, position, recorded_at)] = owner.run("SELECT one, position, recorded_at FROM head")
    for forged, begins in (
        ((position - 5, recorded_at), 296),
        ((position + 5, recorded_at), 301),
        ((position, 7), 300),
    ):
        owner.run("UPDATE head SET position = ?, recorded_at = ?", *forged)
        assert named(log) == [begins]
    owner.run("UPDATE head SET position = ?, recorded_at = ?", position, recorded_at)
    owner.run("INSERT INTO head VALUES (?, ?, ?)", one + 1, position, recorded_at)
    assert named(log) == [300]
    owner.run("DELETE FROM head")
    assert named(log) == [300]


def test_a_log_that_was_altered_with_its_tiles_is_narrowed_down_by_checkpoints(log: Service, owner: Tampering):
    [row] = [row for row in owner.rows() if row[0] == 150]
    owner.set(150, "state", others(owner, row)["state"])
    discard(log.database)
    grow(log.database, EVENTS)
    assert verified(log).findings == [Finding(101, "one of the events from here to 180 is not the one that was signed")]


def test_tiles_that_were_altered_are_told_apart_from_events(log: Service):
    with log.database.transaction() as connection:
        hashes = connection.exec_driver_sql("SELECT hashes FROM tiles WHERE tier = 0 AND number = 0").scalar_one()
        connection.execute(
            tiles.update()
            .where(tiles.c.tier == 0, tiles.c.number == 0)
            .values(hashes=hashes[:320] + bytes(32) + hashes[352:])
        )
    [finding] = verified(log).findings
    assert finding.position == 11
    assert "the tiles were altered" in finding.what


def forge(log: Service, **values: object) -> None:
    with log.database.transaction() as connection:
        connection.execute(checkpoints.update().where(checkpoints.c.size == 180).values(**values))


@pytest.mark.parametrize("column", ["size", "root", "note", "created_at"])
def test_a_checkpoint_that_was_altered_is_named(log: Service, owner: Tampering, column: str):
    with log.database.reading() as connection:
        note = connection.execute(select(checkpoints.c.note).where(checkpoints.c.size == 180)).scalar_one()
    other = {"size": 181, "root": bytes(32), "note": note.replace("180", "181"), "created_at": 7}[column]
    forge(log, **{column: other})
    if column == "created_at":
        assert verified(log).is_intact
    else:
        assert named(log) == [181 if column == "size" else 180]


def test_a_note_of_another_key_is_not_believed(log: Service):
    other = Signer("session-ledger", Ed25519PrivateKey.generate())
    forge(log, note=other.sign(180, bytes(32)))
    [finding] = verified(log).findings
    assert finding.position == 180
    assert "is not signed by" in finding.what


def test_a_note_that_contradicts_a_later_one_is_named(log: Service):
    signer = Signer.parse(log.signing_key.path.read_text().strip())
    forge(log, note=signer.sign(180, bytes(32)), root=bytes(32))
    assert verified(log).findings == [Finding(180, "a checkpoint contradicts what was signed later")]


# -- columns that hold what they should not be able to


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("stream", "text of 16 bytes"), ("stream", b"fifteen bytes.."), ("stream", 7), ("stream", 7.5),
        ("version", "seven"), ("version", 7.5), ("version", b"7"),
        ("recorded_at", "now"), ("recorded_at", 7.5), ("recorded_at", b"7"),
        ("topic", b"UserEnabled"), ("topic", ""), ("topic", "os:system"), ("topic", "\udcff"),
        ("state", "{}"), ("state", b""), ("state", b"\xff"), ("state", 7),
    ],
)  # fmt: skip
def test_a_column_of_a_wrong_type_is_a_finding(log: Service, owner: Tampering, column: str, value: object):
    if value == "\udcff":
        owner.run("UPDATE events SET topic = CAST(x'ff' AS TEXT) WHERE position = 77")
    else:
        owner.set(77, column, value)
    assert named(log)[0] == 77


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_checkpoint_of_wrong_types_is_a_finding(log: Service, owner: Tampering):
    for column, value in (("note", b"\xff"), ("note", 7), ("root", "text"), ("created_at", "now")):
        [before] = owner.run(f"SELECT {column} FROM checkpoints WHERE size = 180")
        owner.run(f"UPDATE checkpoints SET {column} = ? WHERE size = 180", value)
        assert named(log) == [180]
        owner.run(f"UPDATE checkpoints SET {column} = ? WHERE size = 180", before[0])
    owner.run("UPDATE checkpoints SET size = 9e9 WHERE size = 180")
    assert named(log) == [9_000_000_000]


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_column_that_became_null_is_a_finding(log: Service, owner: Tampering):
    for column in COLUMNS[1:]:
        owner.run(f"ALTER TABLE events ALTER COLUMN {column} DROP NOT NULL")
        [before] = owner.run(f"SELECT {column} FROM events WHERE position = 77")
        owner.set(77, column, None)
        assert named(log)[0] == 77
        owner.set(77, column, before[0])
    assert verified(log).is_intact


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_row_whose_position_is_none_is_a_finding(log: Service, owner: Tampering):
    owner.loosen()
    row = owner.rows()[6]
    for value, begins in (
        *(("abc", 0), (b"\x01", 0), (200.5, 201), (0.5, 0), (1e300, 0), (-7.5, 0), ("x" * 10**6, 0)),
    ):
        owner.insert((value, *row[1:]))
        found = verified(log).findings[0]
        assert found.position == begins
        assert len(found.what) < 200
        owner.run("DELETE FROM events WHERE rowid = (SELECT max(rowid) FROM events)")
    assert verified(log).is_intact


def test_a_row_without_a_position_is_a_finding(log: Service, owner: Tampering):
    """Also one that was signed, and then lost its position."""
    owner.loosen()
    owner.insert((None, owner.stream(8), 1, *owner.rows()[6][3:]))
    assert named(log) == [0]
    owner.run("UPDATE events SET position = NULL WHERE position = 77")
    assert named(log)[:2] == [0, 77]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_tile_of_wrong_types_is_a_finding(few: Service, owner: Tampering):
    for column, value in (("number", 0.5), ("hashes", "text"), ("hashes", None)):
        owner.run("CREATE TABLE loose AS SELECT * FROM tiles")
        owner.run("DROP TABLE tiles")
        owner.run("ALTER TABLE loose RENAME TO tiles")
        owner.run(f"UPDATE tiles SET {column} = ? WHERE tier = 0 AND number = 0", value)
        assert "the tiles were altered" in verified(few).findings[0].what


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_note_that_is_no_text_is_a_finding(log: Service, owner: Tampering):
    owner.run("UPDATE checkpoints SET note = CAST(note || x'ff' AS TEXT) WHERE size = 180")
    assert named(log) == [180]


TYPES = {"position": "bigint", "version": "integer", "topic": "text", "stream": "uuid USING stream::uuid"}


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_column_of_another_type_is_told_as_such(few: Service, owner: Tampering):
    for column, other in (
        ("position", "integer"),
        ("position", "numeric"),
        ("version", "bigint"),
        ("topic", "varchar"),
    ):
        owner.run(f"ALTER TABLE events ALTER COLUMN {column} TYPE {other}")
        report = verified(few)
        assert report.is_intact
        assert any(f"the table events has the column {column} " in what for what in report.beside)
        owner.run(f"ALTER TABLE events ALTER COLUMN {column} TYPE {TYPES[column]}")


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_what_cannot_be_read_says_of_which_type_it_is(few: Service, owner: Tampering):
    for column in ("stream", "position"):
        owner.run(f"ALTER TABLE events ALTER COLUMN {column} TYPE text")
        with pytest.raises(StoreUnavailable, match=f"has the column {column} TEXT NOT NULL"):
            verified(few)


# -- what should protect the events, and prove them


def test_the_triggers_that_protect_the_log_must_be_at_work(few: Service, database: Database):
    assert verified(few).beside == []
    Tampering(database).close()
    beside = verified(few).beside
    assert len(beside) == (7 if database.kind == "sqlite" else 4)
    assert all("what protects the log is missing, changed or disabled: " in what for what in beside)


ON_SQLITE = (
    "DROP TRIGGER events_no_update; CREATE TRIGGER events_no_update BEFORE UPDATE ON events BEGIN SELECT 1; END",
    "CREATE TRIGGER more BEFORE INSERT ON events BEGIN SELECT RAISE(IGNORE); END",
)
ON_POSTGRESQL = (
    "CREATE OR REPLACE FUNCTION events_append_only() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "ALTER FUNCTION events_next_only() RESET search_path",
    "CREATE TRIGGER more BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION events_append_only()",
    "CREATE RULE more AS ON INSERT TO events DO INSTEAD NOTHING",
    "ALTER TABLE events DROP CONSTRAINT events_pkey",
    "ALTER TABLE events DROP CONSTRAINT events_stream_version",
)


def test_what_stands_around_the_log_is_compared_by_what_it_does(few: Service, database: Database):
    told = [verified(few).beside]
    for change in ON_SQLITE if database.kind == "sqlite" else ON_POSTGRESQL:
        _as_owner(database, change)
        told.append(verified(few).beside)
        assert len(told[-1]) > len(told[-2]), change
    assert told[0] == []


@pytest.mark.parametrize("table", ["checkpoints", "tiles", "bindings"])
def test_a_table_of_evidence_that_was_dropped_is_told(few: Service, table: str):
    with few.database.transaction() as connection:
        connection.exec_driver_sql(f"DROP TABLE {table}")
    report = verified(few)
    assert report.is_intact
    assert f"the table {table} is missing" in report.beside


def test_checkpoints_that_were_all_deleted_are_told(few: Service):
    with few.database.transaction() as connection:
        connection.execute(checkpoints.delete())
    [beside] = verified(few).beside
    assert beside == "no checkpoint is kept that could be believed, and yet something was signed"
    [beside] = verify_log(few.database, few.signing_key.verifier, []).beside
    assert beside.startswith("nothing that was signed is known")


def test_a_log_is_verified_with_the_key_that_it_is_bound_to(few: Service):
    other = Signer("session-ledger", Ed25519PrivateKey.generate()).verifier
    assert (
        f"the log is bound to b'{few.signing_key.verifier.vkey}'"[:50] in verify_log(few.database, other, []).beside[0]
    )
    with few.database.transaction() as connection:
        connection.execute(bindings.delete().where(bindings.c.name == "signing-key"))
    assert verified(few).beside[0].startswith("the log is bound to no key")


def _as_owner(database: Database, statements: str) -> None:
    if database.kind == "sqlite":
        with closing(sqlite3.connect(Store(database.url).path)) as file:
            file.executescript(statements)
    else:
        with psycopg.connect(**Store(database.owner_url).libpq()) as owner:
            owner.execute(statements.encode())


# -- how it is done


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_several_processes_come_to_the_same(
    log: Service, owner: Tampering, monkeypatch: pytest.MonkeyPatch, processes: int
):
    monkeypatch.setattr(pieces, "PIECE", 256)
    monkeypatch.setattr(pieces, "LEVEL", 8)
    monkeypatch.setattr(versions, "STREAMS", 3)
    heard: list[tuple[int, int]] = []
    key = log.signing_key
    assert verify_log(log.database, key.verifier, [], processes, lambda *done: heard.append(done)).is_intact
    assert heard[-1] == (EVENTS, EVENTS)
    for position in (1, 255, 256, 257, 258, 299):
        row = owner.rows()[position - 1]
        for column, other in others(owner, row).items():
            with owner.changed(position, column, other):
                found = verify_log(log.database, key.verifier, [], processes).findings
                assert found[0].position == position, (position, column)
    with owner.without(257):
        assert verify_log(log.database, key.verifier, [], processes).findings[0] == (257, "missing")


def test_a_log_that_grows_and_is_sealed_meanwhile_is_intact(log: Service, caller: Caller):
    stopping = threading.Event()

    def grows() -> None:
        while not stopping.is_set():
            result(caller.creates(f"user {uuid4()}"))
            log.sealer.seal()

    writer = threading.Thread(target=grows)
    writer.start()
    try:
        reports = [verified(log) for _ in range(20)]
    finally:
        stopping.set()
        writer.join()
    assert [report.findings for report in reports] == [[]] * 20
    assert reports[-1].events > EVENTS
