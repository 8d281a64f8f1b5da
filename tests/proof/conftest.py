from tests.api.conftest import open_api
from tests.projections.conftest import drive, driver, other_process
from tests.store.conftest import stores

__all__ = ["drive", "driver", "open_api", "other_process", "stores"]
