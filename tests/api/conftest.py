from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.api.client import Api, running, settings_of
from tests.clock import ManualClock
from tests.postgres import Database

OpenApi = Callable[..., Api]


@pytest.fixture
def open_api(database: Database, tmp_path: Path, clock: ManualClock) -> Iterator[OpenApi]:
    """Starts applications on one database with the test's clock, as often as a test likes; ends them all."""
    with ExitStack() as stack:

        def open_one(peer: str = "192.0.2.7", *, streams: bool = False, **settings: Any) -> Api:
            """Its streams end at once unless a test wants them: most would wait for the whole of an answer."""
            api = stack.enter_context(running(settings_of(database, tmp_path, **settings), clock, peer))
            if not streams:
                api.app.state.audit_streams.close()
            return api

        yield open_one


@pytest.fixture
def api(open_api: OpenApi) -> Api:
    """The application on an empty database."""
    return open_api()
