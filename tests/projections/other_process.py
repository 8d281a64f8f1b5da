"""A service in a process of its own, on a test's database. It does what it is told, line by line:

`python -m tests.projections.other_process <url> <keys url> <master key file> <owner url>`
"""

import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

from api.ids import new_uuid7
from api.service import Service, Stores
from domain.session import Limits
from tests.clock import ManualClock
from tests.postgres import Database
from tests.projections.driver import Driver, until

PACE_S = 0.005


class OtherProcess:
    """The test's end of it."""

    def __init__(self, database: Database, master_key_file: Path) -> None:
        stores = (database.url, database.keys_url, str(master_key_file), database.owner_url or "")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.projections.other_process", *stores],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *words: object) -> str:
        """Its answer to one line."""
        assert self.process.stdin and self.process.stdout
        print(*words, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline().strip()
        assert answer, "the other process is gone"
        return answer

    def kill(self) -> None:
        """SIGKILL: it closes nothing."""
        self.process.kill()
        self.process.communicate()


def lead(driver: Driver) -> str:
    """Follow the log, from when this process leads."""
    driver.service.start()
    until(lambda: driver.service.follower.is_leading)
    return "leading"


def sign_in(driver: Driver, user_id: str) -> str:
    return str(driver.sign_in(user_id))


def revoke(driver: Driver, user_id: str, session_id: str) -> str:
    return str(driver.revoke(UUID(session_id), user_id=user_id))


def disable(driver: Driver, user_id: str) -> str:
    return str(driver.disable(user_id))


def append(driver: Driver, count: str) -> str:
    """As many sign-ins, one append each; when each was acknowledged, by the clock that all processes share."""
    acknowledged = []
    for _ in range(int(count)):
        session_id = driver.sign_in()
        acknowledged.append(f"{session_id}@{time.monotonic()}")
        time.sleep(PACE_S)
    return " ".join(acknowledged)


def main(url: str, keys_url: str, master_key_file: str, owner_url: str) -> None:
    stores = Stores(url, keys_url, Path(master_key_file), owner_url or None)
    driver = Driver(Service(stores, Limits(), new_uuid7, ManualClock()))
    commands = {command.__name__: command for command in (lead, sign_in, revoke, disable, append)}
    for line in sys.stdin:
        name, *words = line.split()
        print(commands[name](driver, *words), flush=True)
    driver.close()
    driver.service.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
