from pathlib import Path

import pytest

from api.service import Service, Stores
from tests.postgres import Database
from tests.store.given import Caller


@pytest.fixture
def stores(database: Database, tmp_path: Path) -> Stores:
    """Where `open_service` keeps everything."""
    return Stores(database.url, database.keys_url, tmp_path / "master.key", database.owner_url)


@pytest.fixture
def caller(service: Service) -> Caller:
    """Somebody who sends commands to `service`."""
    return Caller(service)
