from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api.service import Service, Stores
from store.database import Database as Opened
from store.keys import KeyStore
from tests.postgres import Database, PostgresCluster
from tests.store.given import Caller

OpenKeys = Callable[[], KeyStore]


@pytest.fixture
def stores(database: Database, tmp_path: Path) -> Stores:
    """Where `open_service` keeps everything."""
    return Stores(database.url, database.keys_url, tmp_path / "master.key", database.owner_url)


@pytest.fixture
def open_keys(database: Database, master_key_file: Path) -> Iterator[OpenKeys]:
    """Opens the keys, as often as a test likes, under the `master_key_file` of its file."""
    opened: list[Opened] = []

    def open_one() -> KeyStore:
        opened.append(Opened(database.keys_url))
        return KeyStore(opened[-1], master_key_file)

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def keys(open_keys: OpenKeys) -> KeyStore:
    return open_keys()


@pytest.fixture
def caller(service: Service) -> Caller:
    """Somebody who sends commands to `service`."""
    return Caller(service)


@pytest.fixture
def files(database: Database, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[], bytes]:
    """Reads every byte that either database keeps on disk."""

    def read() -> bytes:
        directory = tmp_path
        if database.kind == "postgresql":
            cluster: PostgresCluster = request.getfixturevalue("postgres_cluster")
            cluster.execute("CHECKPOINT")
            directory = cluster._data
        return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())

    return read
