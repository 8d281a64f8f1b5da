"""`./scripts/ledger backup`: a copy that can be restored, though somebody writes all the time."""

from pathlib import Path

import pytest

from api.ids import new_uuid7
from api.service import Service, Stores
from domain.events import SessionCreated
from domain.session import Limits
from projections.rebuild import rebuild
from projections.sessions import SessionsProjection
from store.log import Record, pages
from tests.clock import ManualClock
from tests.postgres import Database, sqlite_database
from tests.projections.driver import Driver, until
from tests.scripts.conftest import Ledger
from tests.store.given import child

WRITES = """
import sys
from tests.projections.other_process import *
service = Service(Stores(sys.argv[1], sys.argv[2], Path(sys.argv[3])), Limits(), new_uuid7, ManualClock())
driver = Driver(service)
for number in range(10**9):
    driver.sign_in(f"user-{number % 100}")
"""


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """On SQLite only: PostgreSQL has backups of its own."""
    return sqlite_database(tmp_path)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "backups" / "today"


@pytest.fixture(autouse=True)
def room(target: Path) -> None:
    target.parent.mkdir()


def restored(target: Path, signing_key: Path, clock: ManualClock) -> Service:
    """A service on the copy; what it signs with was never part of that."""
    urls = f"sqlite:///{target}/ledger.db", f"sqlite:///{target}/keys/keys.db"
    stores = Stores(*urls, target / "keys" / "master.key", signing_key_file=signing_key)
    return Service(stores, Limits(), new_uuid7, clock)


def log(service: Service) -> list[Record]:
    with service.database.reading() as connection:
        return [record for page in pages(connection, 0, 10**9) for record in page]


def test_a_copy_made_under_load_is_the_log_as_it_was_at_a_moment(
    beside: Ledger, driver: Driver, database: Database, target: Path, tmp_path: Path, clock: ManualClock
):
    with child(WRITES, database.url, database.keys_url, tmp_path / "master.key"):
        until(lambda: driver.head() > 200)
        ran = beside("backup", str(target))
        assert (ran.returncode, ran.stdout) == (0, "")
        copied = driver.head()
        until(lambda: driver.head() > copied + 20)
        ran = beside("check-restore", str(target))
        assert (ran.returncode, ran.stderr) == (0, "")
        assert ran.stdout.endswith("It can be restored.\n")
    assert sorted(path.name for path in target.rglob("*")) == ["keys", "keys.db", "ledger.db", "master.key"]
    copy = restored(target, tmp_path / "signing.key", clock)
    try:
        events = log(copy)
        assert 200 < len(events) < driver.head()
        assert events == log(driver.service)[: len(events)]
        assert rebuild(copy.database, SessionsProjection).identical
        people = {record.stream for record in events if record.topic == SessionCreated.TOPIC}
        assert copy.keys.find([*people]).keys() == people
    finally:
        copy.close()


def test_what_is_there_is_not_written_over(beside: Ledger, driver: Driver, target: Path):
    driver.sign_in()
    target.mkdir()
    (target / "something").touch()
    ran = beside("backup", str(target))
    assert (ran.returncode, ran.stderr) == (1, f"{target} is not empty.\n")
    assert list(target.parent.rglob("*")) == [target, target / "something"]
    (target / "something").unlink()
    assert beside("backup", str(target)).returncode == 0


def test_what_cannot_be_written_is_not_there(beside: Ledger, driver: Driver, target: Path, tmp_path: Path):
    driver.sign_in()
    (tmp_path / "master.key").rename(tmp_path / "elsewhere")
    assert beside("backup", str(target)).returncode == 3
    (tmp_path / "elsewhere").rename(tmp_path / "master.key")
    assert beside("backup", str(target / "nowhere" / "below"), apart=True).returncode == 3
    assert list(target.parent.iterdir()) == []


def test_postgresql_is_left_to_its_own_backups(
    ledger: Ledger, postgres_cluster, target: Path, tmp_path: Path, clock: ManualClock
):
    with postgres_cluster.fresh_database() as database:
        stores = Stores(database.url, database.keys_url, tmp_path / "pg.key", database.owner_url)
        Service(stores, Limits(), new_uuid7, clock).close()
        names = {"LEDGER_DATABASE_URL": database.url, "LEDGER_KEYS_DATABASE_URL": database.keys_url}
        ran = ledger("backup", str(target), LEDGER_MASTER_KEY_FILE=f"{tmp_path}/pg.key", **names)
    assert ran.returncode == 1
    assert "pg_basebackup or pg_dump" in ran.stderr
    assert list(target.parent.iterdir()) == []
