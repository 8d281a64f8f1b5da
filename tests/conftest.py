import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from api.ids import new_uuid7
from api.service import Service, Stores
from domain.session import Limits
from tests.clock import ManualClock
from tests.postgres import Database, PostgresCluster, Schema, sqlite_database

MEMORY = Path("/dev/shm")
ROOM = 2 * 2**30
"""Bytes in which the databases of two test processes have ample room."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep the tests' files in memory, where there is room: what a killed process has synced is there either way."""
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM:
        tempfile.tempdir = os.environ["TMPDIR"] = str(MEMORY)


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[PostgresCluster]:
    """A PostgreSQL of this pytest process's own."""
    cluster = PostgresCluster()
    yield cluster
    cluster.close()


@pytest.fixture
def postgres_schema(postgres_cluster: PostgresCluster) -> Iterator[Schema]:
    """An empty schema, gone after the test."""
    with postgres_cluster.fresh_schema() as schema:
        yield schema


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Runs the test once on SQLite files, once on PostgreSQL: an empty place for the log, another one for the keys."""
    with _empty(request, tmp_path) as database:
        yield database


NewDatabase = Callable[[Path], Database]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def new_database(request: pytest.FixtureRequest) -> Iterator[NewDatabase]:
    """Makes an empty place as `database` does, for what several tests of a file read and none changes."""
    with ExitStack() as stack:
        yield lambda directory: stack.enter_context(_empty(request, directory))


@contextmanager
def _empty(request: pytest.FixtureRequest, directory: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        yield sqlite_database(directory)
        return
    cluster: PostgresCluster = request.getfixturevalue("postgres_cluster")
    with cluster.fresh_database() as database:
        yield database


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


OpenService = Callable[..., Service]


@pytest.fixture
def open_service(database: Database, tmp_path: Path, clock: ManualClock) -> Iterator[OpenService]:
    """Opens services on one database, as often as a test likes, with the test's clock; closes them at the end."""
    opened: list[Service] = []

    def open_one(limits: Limits | None = None) -> Service:
        stores = Stores(database.url, database.keys_url, tmp_path / "master.key", database.owner_url)
        opened.append(Service(stores, limits or Limits(), new_uuid7, clock))
        return opened[-1]

    yield open_one
    for service in opened:
        service.close()


@pytest.fixture
def service(open_service: OpenService) -> Service:
    """Everything behind HTTP, on an empty database; its follower and sweeper are not started."""
    return open_service()
