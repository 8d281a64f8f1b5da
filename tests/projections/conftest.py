from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from api.ids import new_uuid7
from api.service import Service, Stores
from domain.policies import Policy
from domain.session import Limits
from projections import follower, places
from projections.follower import Follower
from projections.places import Projection
from tests.clock import ManualClock
from tests.conftest import NewDatabase, OpenService
from tests.postgres import Database
from tests.projections.driver import Driver
from tests.projections.other_process import OtherProcess

Drive = Callable[[Service], Driver]
Follow = Callable[..., Follower]


@pytest.fixture
def drive(open_service: OpenService) -> Iterator[Drive]:
    """Takes the wheel of a service, of as many as a test likes; lets go before `open_service` closes them."""
    drivers: list[Driver] = []

    def take(service: Service) -> Driver:
        drivers.append(Driver(service))
        return drivers[-1]

    yield take
    for driver in drivers:
        driver.close()


@pytest.fixture
def driver(drive: Drive, service: Service) -> Driver:
    """At the wheel of `service`."""
    return drive(service)


NewDriver = Callable[[], Driver]


@pytest.fixture(scope="module")
def new_driver(new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewDriver]:
    """At the wheel of a service of its own, with its own clock, for a history that a file's tests share."""
    with ExitStack() as stack:

        def new() -> Driver:
            directory = tmp_path_factory.mktemp("shared")
            database = new_database(directory)
            stores = Stores(database.url, database.keys_url, directory / "master.key", database.owner_url)
            service = stack.enter_context(closing(Service(stores, Limits(), new_uuid7, ManualClock())))
            return stack.enter_context(closing(Driver(service)))

        yield new


@pytest.fixture
def other_process(database: Database, tmp_path: Path) -> Iterator[OtherProcess]:
    """Another service on the same database, in a process of its own."""
    process = OtherProcess(database, tmp_path / "master.key")
    yield process
    process.kill()


@pytest.fixture
def follow(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Follow]:
    """Starts a follower with policies and projections of the test's own. Its pauses are short."""
    monkeypatch.setattr(places, "FIRST_PAUSE_S", 0.002)
    monkeypatch.setattr(places, "LAST_PAUSE_S", 0.05)
    monkeypatch.setattr(places, "GATHER_S", 0.005)
    monkeypatch.setattr(follower, "IDLE_S", 0.05)
    started: list[Follower] = []

    def start(*policies: Policy, projections: Sequence[Projection] = ()) -> Follower:
        started.append(Follower(service.recorder, service.mapper, policies, service.clock, projections))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.close()
