import io
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from api.logs import JsonFormatter
from tests.api.client import Api, running, settings_of
from tests.clock import ManualClock
from tests.conftest import NewDatabase
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


@pytest.fixture(scope="module")
def shared_api(new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An application for those tests of a file that leave nothing behind which another one of them would see."""
    directory = tmp_path_factory.mktemp("shared")
    with running(settings_of(new_database(directory), directory), ManualClock()) as api:
        api.app.state.audit_streams.close()
        yield api


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that the process logs meanwhile, as it would be written."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(lambda record: record.name.partition(".")[0] not in ("httpx", "httpcore"))  # the test's own
    access = logging.StreamHandler(written)
    root, ledger_access = logging.getLogger(), logging.getLogger("ledger.access")
    before = root.level, ledger_access.level, ledger_access.propagate
    root.setLevel(logging.DEBUG)
    ledger_access.setLevel(logging.INFO)
    ledger_access.propagate = False
    root.addHandler(handler)
    ledger_access.addHandler(access)
    yield written
    root.removeHandler(handler)
    ledger_access.removeHandler(access)
    root.setLevel(before[0])
    ledger_access.setLevel(before[1])
    ledger_access.propagate = before[2]
