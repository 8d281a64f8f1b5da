from collections.abc import Callable, Iterator

import pytest

from api.service import Service
from tests.conftest import OpenService
from tests.projections.driver import Driver

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
