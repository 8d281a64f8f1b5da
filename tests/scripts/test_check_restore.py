"""`./scripts/ledger check-restore`: of a backup, which it does not touch, and of the ledger of the settings."""

import json
import sqlite3
from pathlib import Path

import pytest

from tests.postgres import Database, PostgresCluster
from tests.projections.driver import Driver
from tests.scripts.conftest import Ledger

on_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


@pytest.fixture
def backed_up(beside: Ledger, driver: Driver, tmp_path: Path) -> Path:
    """A backup in which three of four events are sealed; five more were signed since."""
    target = tmp_path / "backup"
    driver.sign_in("alice")
    driver.service.sealer.seal()
    driver.sign_in("bob")
    assert beside("backup", str(target)).returncode == 0
    driver.sign_in("carol")
    driver.service.sealer.seal()
    return target


@on_sqlite
def test_a_backup_that_can_be_restored_says_what_it_lacks(beside: Ledger, backed_up: Path):
    before = {path: path.read_bytes() for path in backed_up.rglob("*") if path.is_file()}
    ran = beside("check-restore", str(backed_up))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == (
        "4 events; 1 checkpoints, the last at 2; newer: 2\n"
        "2 events or more, which were signed since, are not in it, and the signer refuses to go on behind them: "
        "decision 0010 says what to do.\n"
        "Read models that are what the log says: sessions, api_keys, audit\n"
        "It can be restored.\n"
    )
    assert {path: path.read_bytes() for path in backed_up.rglob("*") if path.is_file()} == before


@on_sqlite
def test_a_note_that_was_kept_and_is_newer_says_that_it_is_an_older_backup(
    beside: Ledger, backed_up: Path, tmp_path: Path
):
    note = tmp_path / "signing.key.last"
    ran = beside("check-restore", str(backed_up), "--checkpoint", str(note))
    assert ran.returncode == 1
    assert ran.stdout.startswith(f"position 5: missing: {note} was signed at 6\n")
    assert ran.stdout.endswith("It cannot be restored as it is.\n")


@on_sqlite
def test_an_altered_event_a_lost_key_and_a_wrong_row_are_all_told(beside: Ledger, backed_up: Path):
    with sqlite3.connect(backed_up / "ledger.db") as copy:
        copy.execute("DROP TRIGGER events_no_update")
        copy.execute("UPDATE events SET version = 7 WHERE position = 2")
        copy.execute("INSERT INTO erasures VALUES ('abc', 1)")
    with sqlite3.connect(backed_up / "keys" / "keys.db") as copy:
        copy.execute("DELETE FROM user_keys WHERE rowid IN (SELECT rowid FROM user_keys LIMIT 1)")
    ran = beside("check-restore", str(backed_up), "--json")
    assert ran.returncode == 1, ran.stderr
    said = json.loads(ran.stdout)
    faults = "\n".join(said.pop("faults"))
    assert said == {
        "restorable": False,
        "events": 4,
        "sealed": 2,
        "unsealed": 2,
        "checkpoints": 1,
        "lost": 2,
        "read_models": {"sessions": False, "api_keys": True, "audit": True},
    }
    for told in ("position 2: version 7", "1 users of the log have no key", "read model sessions: 2 rows"):
        assert told in faults


@on_sqlite
def test_a_torn_file_is_found(beside: Ledger, backed_up: Path):
    with (backed_up / "ledger.db").open("r+b") as file:
        file.truncate(file.seek(0, 2) // 2)
    ran = beside("check-restore", str(backed_up))
    assert ran.returncode in (1, 3)
    assert "Traceback" not in ran.stderr


@on_sqlite
def test_without_the_signing_key_the_log_says_who_signed_it(beside: Ledger, backed_up: Path, tmp_path: Path):
    for name in ("signing.key", "signing.key.last"):
        (tmp_path / name).unlink()
    ran = beside("check-restore", str(backed_up))
    assert ran.returncode == 0
    assert ran.stderr.startswith("There is no signing key here. The log's own word for it is taken; --key is safer: ")
    assert "lost" not in ran.stdout


@on_sqlite
def test_what_is_not_there_cannot_be_checked(beside: Ledger, driver: Driver, tmp_path: Path):
    driver.sign_in()
    ran = beside("check-restore", str(tmp_path / "nowhere"))
    assert (ran.returncode, ran.stderr) == (3, f"There is no database at {tmp_path}/nowhere/ledger.db.\n")
    assert not (tmp_path / "nowhere").exists()


def test_the_ledger_of_the_settings_is_checked_when_no_backup_is_named(beside: Ledger, driver: Driver):
    driver.sign_in()
    driver.service.sealer.seal()
    ran = beside("check-restore")
    assert (ran.returncode, ran.stderr) == (0, "")


@on_postgresql
def test_a_dump_of_postgresql_that_was_restored_is_checked(
    beside: Ledger, driver: Driver, database: Database, postgres_cluster: PostgresCluster, tmp_path: Path
):
    driver.sign_in("alice")
    driver.service.sealer.seal()
    for number, url in enumerate((database.url, database.keys_url)):  # the log first
        postgres_cluster.dump(schema_of(url), tmp_path / f"{number}.dump")
    driver.sign_in("bob")
    driver.service.sealer.seal()
    for number, url in enumerate((database.url, database.keys_url)):
        postgres_cluster.restore(schema_of(url), tmp_path / f"{number}.dump")
    ran = beside("check-restore")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[:2] == [
        "2 events; 1 checkpoints, the last at 2; newer: 0",
        "2 events or more, which were signed since, are not in it, and the signer refuses to go on behind them: "
        "decision 0010 says what to do.",
    ]


def schema_of(url: str) -> str:
    return url.rpartition("search_path%3D")[2]
