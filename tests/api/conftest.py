from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from api.settings import Settings
from tests.api.client import AUDIENCE, BOOTSTRAP_KEY, ISSUER, Api, running, write_jwks
from tests.clock import ManualClock
from tests.postgres import Database

OpenApi = Callable[..., Api]


@pytest.fixture
def open_api(database: Database, tmp_path: Path, clock: ManualClock) -> Iterator[OpenApi]:
    """Starts applications on one database with the test's clock, as often as a test likes; ends them all."""
    with ExitStack() as stack:

        def open_one(peer: str = "192.0.2.7", **settings: Any) -> Api:
            standing = {
                "database_url": database.url,
                "database_owner_url": database.owner_url,
                "keys_database_url": database.keys_url,
                "master_key_file": tmp_path / "master.key",
                "bootstrap_api_key": BOOTSTRAP_KEY,
                "jwt_issuer": ISSUER,
                "jwt_audience": AUDIENCE,
                "jwt_jwks": str(write_jwks(tmp_path / "jwks.json")),
                "guess_limit": 0,  # tests send bad credentials by the hundred while their clock stands still
            }
            return stack.enter_context(running(Settings(**{**standing, **settings}), clock, peer))

        yield open_one


@pytest.fixture
def api(open_api: OpenApi) -> Api:
    """The application on an empty database."""
    return open_api()
