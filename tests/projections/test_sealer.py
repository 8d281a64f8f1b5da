"""The log is sealed by the process that leads, in time, and never when it is not the log that was (T-27, TEV-03)."""

import logging
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import delete, select, text

from projections import sealer as sealing
from store.checkpoints import latest
from store.database import Database as Store
from store.log import leaf, pages
from store.merkle import leaf_hash, root
from store.notes import Checkpoint
from store.schema import checkpoints, tiles
from store.signing import SigningRefused
from tests.clock import ManualClock
from tests.conftest import OpenService
from tests.postgres import Database
from tests.projections.conftest import Drive
from tests.projections.driver import Driver, until
from tests.store.given import at_once, stored, subtrees_of, without_triggers

ROOT = Path(__file__).parents[2]

SEAL_AND_DIE = """
import sys
from pathlib import Path
from uuid import uuid4

from api.ids import new_uuid7
from api.service import Service, Stores
from domain.session import Limits
from store import failpoints
from tests.clock import ManualClock

url, keys_url, master_key_file = sys.argv[1:]
service = Service(Stores(url, keys_url, Path(master_key_file)), Limits(), new_uuid7, ManualClock())
failpoints.arm(failpoints.Failpoint.AFTER_SIGNING)
service.sealer.seal()
"""


def sealed(driver: Driver) -> Checkpoint | None:
    """What the newest published note says."""
    with driver.service.database.reading() as connection:
        published = latest(connection)
    return published and driver.service.signing_key.verifier.open(published.note)


def root_of_log(store: Store, size: int) -> bytes:
    with store.reading() as connection:
        leaves = [leaf_hash(leaf(record)) for page in pages(connection, 0, size) for record in page]
    return root(subtrees_of(leaves), size)


def test_a_checkpoint_says_how_long_the_log_is_and_its_root(driver: Driver, clock: ManualClock):
    driver.sign_in()
    driver.service.sealer.seal()
    assert sealed(driver) == ("session-ledger", 2, root_of_log(driver.service.database, 2))
    assert driver.service.signing_key.remembered() == sealed(driver)
    with driver.service.database.reading() as connection:
        assert latest(connection).created_at == clock.micros()
    driver.sign_in()
    assert driver.service.sealer.progress() == (2, 1, None)
    driver.service.sealer.seal()
    assert sealed(driver) == ("session-ledger", 3, root_of_log(driver.service.database, 3))
    assert driver.service.sealer.progress() == (3, 0, None)


def test_nothing_new_is_not_sealed_again(driver: Driver, clock: ManualClock):
    driver.service.sealer.seal()
    assert sealed(driver) is None
    driver.sign_in()
    driver.service.sealer.seal()
    clock.advance(60)
    driver.service.sealer.seal()
    with driver.service.database.reading() as connection:
        assert len(connection.execute(select(checkpoints)).all()) == 1
        assert latest(connection).created_at < clock.micros()


# -- as a thread


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sealers look all the time, and seal after three events or a long time."""
    monkeypatch.setattr(sealing, "PACE_S", 0.005)
    monkeypatch.setattr(sealing, "EVENTS", 3)


@pytest.mark.usefixtures("often")
def test_a_service_that_leads_seals_after_so_many_events(driver: Driver):
    driver.service.start()
    driver.sign_in("alice")
    assert sealed(driver) is None
    driver.sign_in("bob")
    until(lambda: sealed(driver) and sealed(driver).size >= 3)


@pytest.mark.usefixtures("often")
def test_a_service_that_leads_seals_after_so_much_time(driver: Driver, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sealing, "INTERVAL_S", 0.05)
    driver.service.start()
    driver.sign_in("alice")
    until(lambda: sealed(driver) == ("session-ledger", 2, root_of_log(driver.service.database, 2)))


def test_a_shutdown_seals_what_there_is(open_service: OpenService, drive: Drive):
    service = open_service()
    service.start()
    drive(service).sign_in()
    service.close()
    assert sealed(drive(open_service())).size == 2


def test_a_shutdown_leaves_a_long_way_to_the_next_process(
    open_service: OpenService, drive: Drive, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sealing, "SHUTDOWN_EVENTS", 1)
    service = open_service()
    service.start()
    drive(service).sign_in()
    service.close()
    assert sealed(drive(open_service())) is None


@pytest.mark.usefixtures("often")
def test_who_does_not_lead_does_not_seal(open_service: OpenService, drive: Drive, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sealing, "INTERVAL_S", 0.02)
    leader, other = drive(open_service()), drive(open_service())
    calls: list[Driver] = []
    for driver in (leader, other):
        monkeypatch.setattr(driver.service.sealer, "seal", lambda driver=driver: calls.append(driver))
    leader.service.start()
    until(lambda: leader.service.follower.is_leading)
    other.service.start()
    until(lambda: len(calls) > 10)
    assert other not in calls


# -- when it must not sign


def test_two_processes_that_seal_at_once_publish_one_history(open_service: OpenService, drive: Drive):
    drivers = [drive(open_service()) for _ in range(3)]
    for _ in range(5):
        drivers[0].sign_in()
        at_once(*[driver.service.sealer.seal for driver in drivers])
    with drivers[0].service.database.reading() as connection:
        rows = connection.execute(select(checkpoints).order_by(checkpoints.c.size)).all()
    assert [row.size for row in rows] == [2, 3, 4, 5, 6]
    assert all(row.root == root_of_log(drivers[0].service.database, row.size) for row in rows)


def test_a_crash_between_memory_and_publishing_loses_nothing(driver: Driver, database: Database, tmp_path: Path):
    driver.sign_in()
    script = [sys.executable, "-c", SEAL_AND_DIE, database.url, database.keys_url, str(tmp_path / "master.key")]
    died = subprocess.run(script, cwd=ROOT, timeout=60)
    assert died.returncode == -9
    assert sealed(driver) is None
    signed = driver.service.signing_key.remembered()
    assert signed.size == 2
    driver.service.sealer.seal()
    assert sealed(driver) == signed


def test_a_crash_is_followed_by_a_larger_log(driver: Driver, database: Database, tmp_path: Path):
    driver.sign_in()
    script = [sys.executable, "-c", SEAL_AND_DIE, database.url, database.keys_url, str(tmp_path / "master.key")]
    subprocess.run(script, cwd=ROOT, timeout=60)
    driver.sign_in()
    driver.service.sealer.seal()
    assert sealed(driver).size == 3


def forget_tail(
    driver: Driver, database: Database, keep: int, tables: tuple[str, ...] = ("checkpoints", "tiles")
) -> None:
    """Put the log back to its first events, as an older copy of the database would have them."""
    owner = Store(database.owner_url or database.url)
    with owner.transaction() as connection, without_triggers(connection):
        connection.execute(text(f"DELETE FROM events WHERE position > {keep}"))
        connection.execute(text(f"UPDATE head SET position = {keep}"))
    owner.close()
    with driver.service.database.transaction() as connection:
        for name in tables:
            connection.execute(text(f"DELETE FROM {name}"))


@pytest.mark.parametrize("tables", [(), ("checkpoints",), ("checkpoints", "tiles")], ids=str)
def test_an_older_copy_of_the_database_is_not_signed(driver: Driver, database: Database, tables: tuple[str, ...]):
    for _ in range(4):
        driver.sign_in()
    driver.service.sealer.seal()
    before = driver.service.signing_key.remembered()
    forget_tail(driver, database, 3, tables)
    with pytest.raises(SigningRefused, match="ends at 3, and 5 was signed: this is an older copy"):
        driver.service.sealer.seal()
    assert driver.service.signing_key.remembered() == before


def test_an_older_copy_that_has_grown_again_is_not_signed(driver: Driver, database: Database):
    for _ in range(4):
        driver.sign_in()
    driver.service.sealer.seal()
    forget_tail(driver, database, 3)
    driver.service.recorder.insert_events([stored(uuid4()) for _ in range(4)])
    for _ in range(2):
        with pytest.raises(SigningRefused, match="not the one that was signed at 5"):
            driver.service.sealer.seal()
    assert sealed(driver) is None


def test_what_is_not_signed_is_told(
    driver: Driver, database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sealing, "PACE_S", 0.005)
    monkeypatch.setattr(sealing, "INTERVAL_S", 0.02)
    driver.sign_in()
    driver.service.sealer.seal()
    forget_tail(driver, database, 1)
    driver.service.start()
    until(lambda: driver.service.sealer.progress().refused)
    until(lambda: "no checkpoint is signed" in caplog.messages)
    [told] = [record for record in caplog.records if record.getMessage() == "no checkpoint is signed"]
    assert told.levelno == logging.ERROR
    assert "older copy" in told.fields["why"]


def test_a_tree_that_was_lost_or_altered_is_made_anew(driver: Driver):
    for _ in range(3):
        driver.sign_in()
    driver.service.sealer.seal()
    with driver.service.database.transaction() as connection:
        hashes = connection.execute(select(tiles.c.hashes)).scalar_one()
        connection.execute(tiles.update().values(hashes=bytes(32) + hashes[32:]))
    driver.sign_in()
    driver.service.sealer.seal()
    assert sealed(driver) == ("session-ledger", 5, root_of_log(driver.service.database, 5))
    with driver.service.database.transaction() as connection:
        connection.execute(delete(tiles))
    driver.sign_in()
    driver.service.sealer.seal()
    assert sealed(driver) == ("session-ledger", 6, root_of_log(driver.service.database, 6))


def test_a_restored_file_is_an_older_copy(tmp_path: Path, open_service: OpenService, drive: Drive):
    service = open_service()
    if not service.database.is_sqlite:
        pytest.skip("a file is copied")
    drive(service).sign_in()
    service.sealer.seal()
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(service.database.path)) as file, closing(sqlite3.connect(copy)) as older:
        file.backup(older)
    drive(service).sign_in()
    service.sealer.seal()
    with closing(sqlite3.connect(service.database.path)) as file, closing(sqlite3.connect(copy)) as older:
        older.backup(file)
    with pytest.raises(SigningRefused, match="ends at 2, and 3 was signed: this is an older copy"):
        open_service().sealer.seal()
