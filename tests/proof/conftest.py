from tests.api.conftest import open_api

__all__ = ["open_api"]
