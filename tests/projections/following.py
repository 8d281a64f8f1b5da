"""A service in a process of its own, on a test's database and with a test's clock: it follows, until it is killed.

Started as `python -m tests.projections.following <url> <keys url> <master key file> <owner url>`; says "leading" when
it leads.
"""

import sys
from pathlib import Path

from api.ids import new_uuid7
from api.service import Service, Stores
from domain.session import Limits
from tests.clock import ManualClock
from tests.projections.driver import until


def main(url: str, keys_url: str, master_key_file: str, owner_url: str) -> None:
    stores = Stores(url, keys_url, Path(master_key_file), owner_url or None)
    service = Service(stores, Limits(), new_uuid7, ManualClock())
    service.start()
    until(lambda: service.follower.is_leading)
    print("leading", flush=True)
    sys.stdin.read()
    service.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
