from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api.service import Service
from tests.conftest import OpenService
from tests.postgres import Database
from tests.projections.driver import Driver
from tests.projections.other_process import OtherProcess

Drive = Callable[[Service], Driver]


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


@pytest.fixture
def other_process(database: Database, tmp_path: Path) -> Iterator[OtherProcess]:
    """Another service on the same database, in a process of its own."""
    process = OtherProcess(database, tmp_path / "master.key")
    yield process
    process.kill()
