from tests.api.conftest import open_api
from tests.store.conftest import stores

__all__ = ["open_api", "stores"]
