from collections.abc import Callable
from pathlib import Path

import pytest

from api.service import Service, Stores
from tests.postgres import Database, PostgresCluster
from tests.store.given import Caller


@pytest.fixture
def stores(database: Database, tmp_path: Path) -> Stores:
    """Where `open_service` keeps everything."""
    return Stores(database.url, database.keys_url, tmp_path / "master.key", database.owner_url)


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
