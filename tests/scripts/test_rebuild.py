"""`./scripts/ledger rebuild`: what it says, how it ends, and that it goes on after a kill. The real script."""

import fcntl
import json
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from api.ids import new_uuid7
from api.service import Service, Stores
from domain.session import Limits
from tests.projections.driver import Driver

Ledger = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    """A service on the files that `ledger` works on."""
    var = tmp_path / "var"
    var.mkdir()
    stores = Stores(f"sqlite:///{var}/ledger.db", f"sqlite:///{var}/keys.db", var / "master.key")
    driver = Driver(Service(stores, Limits(), new_uuid7))
    yield driver
    driver.close()
    driver.service.close()


def alter(driver: Driver, statement: str) -> None:
    with driver.service.database.transaction() as connection:
        connection.exec_driver_sql(statement)


def test_it_says_identical_and_needs_no_key(ledger: Ledger, driver: Driver, tmp_path: Path):
    driver.sign_in()
    (tmp_path / "var" / "master.key").unlink()
    ran = ledger("rebuild")
    assert (ran.returncode, ran.stdout.splitlines()[0]) == (0, "sessions: identical after 2 events")
    assert "sessions" in ran.stderr and "2/2" in ran.stderr


def test_rows_that_differ_are_named_and_replaced(ledger: Ledger, driver: Driver):
    session_id = driver.sign_in()
    alter(driver, "UPDATE sessions SET device = 'Firefox'")
    line = f"  sessions {session_id}: device is Firefox live, Chrome on macOS rebuilt"
    dry = ledger("rebuild", "sessions", "--dry-run")
    assert (dry.returncode, dry.stdout.splitlines()) == (1, ["sessions: 1 rows differ, after 2 events", line])
    ran = ledger("rebuild", "sessions")
    assert ran.returncode == 0
    assert ran.stdout.splitlines() == ["sessions: 1 rows differed and were replaced, after 2 events", line]
    assert ledger("rebuild", "--dry-run").returncode == 0
    assert driver.view(session_id).device == "Chrome on macOS"


def test_programs_get_the_same_as_json(ledger: Ledger, driver: Driver):
    session_id = driver.sign_in()
    alter(driver, "UPDATE sessions SET token_hash = x'00ff'")
    [told] = json.loads(ledger("rebuild", "sessions", "--dry-run", "--json").stdout)["rebuilt"]
    [row] = told.pop("rows")
    assert told == {
        **{"name": "sessions", "events": 2, "identical": False, "replaced": False, "shapes": [], "differing": 1}
    }
    assert (row["table"], row["key"], row["live"]) == (
        "sessions", {"session_id": str(session_id)}, {"token_hash": "00ff"}
    )  # fmt: skip


def test_a_second_rebuild_at_once_is_refused(ledger: Ledger, driver: Driver, tmp_path: Path):
    driver.sign_in()
    with (tmp_path / "var" / "ledger.db.rebuild").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = ledger("rebuild")
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == "Another rebuild is running here."
    assert ledger("rebuild").returncode == 0


def test_an_event_that_cannot_be_read_is_named_and_the_live_tables_stay(ledger: Ledger, driver: Driver, tmp_path: Path):
    session_id = driver.sign_in()
    driver.sign_in("bob")
    with closing(sqlite3.connect(tmp_path / "var" / "ledger.db")) as connection:
        connection.execute("DROP TRIGGER events_no_update")
        connection.execute("UPDATE events SET state = x'7b' WHERE position = 3")
        connection.commit()
    ran = ledger("rebuild")
    assert (ran.returncode, ran.stdout) == (3, "")
    assert "sessions: It stopped at position 3, " in ran.stderr
    assert ran.stderr.endswith("The live read model is as it was.\n")
    assert driver.active() == [session_id]
    assert driver.revoke(session_id)


def test_a_read_model_that_does_not_exist_is_a_misuse(ledger: Ledger, tmp_path: Path):
    assert ledger("rebuild", "nothing").returncode == 2
    ran = ledger("rebuild")
    assert (ran.returncode, ran.stderr) == (3, f"There is no database at {tmp_path}/var/ledger.db.\n")
