"""A service in a process of its own, on a test's database. It does what it is told, line by line:

`python -m tests.projections.other_process <url> <keys url> <master key file> <owner url>`
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from api.ids import new_uuid7
from api.service import Service, Stores
from domain.errors import LedgerError
from domain.session import Limits
from projections.actors import ActorNames
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
        self.tell(*words)
        return self.answer()

    def tell(self, *words: object) -> None:
        assert self.process.stdin
        print(*words, file=self.process.stdin, flush=True)

    def answer(self) -> str:
        assert self.process.stdout
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


def reads(driver: Driver, user_id: str) -> str:
    """The user id as the log has it sealed, or `nothing`."""
    service = driver.service
    name = ActorNames(service.database, service.keys, service.mapper).user(driver.stream(user_id))
    return name or "nothing"


def seals(driver: Driver, user_id: str) -> str:
    """What a key to seal with is answered with."""
    try:
        driver.service.keys.ensure([driver.stream(user_id)])
    except LedgerError as error:
        return type(error).__name__
    return "a key"


def accepted(driver: Driver, user_id: str) -> str:
    """How many of the user's sessions are let in, whoever is asked for them."""
    listed = driver.active(user_id)
    known = [view.session_id for view in driver.history(user_id)]
    return str(len({*listed, *filter(driver.is_accepted, known)}))


def at(driver: Driver, moment: str, name: str, *words: str) -> str:
    """The answer to a command that is begun at this moment of the clock that all processes share; or its refusal."""
    while (begun := time.monotonic()) < float(moment):
        pass
    try:
        answer = COMMANDS[name](driver, *words)
    except LedgerError as error:
        answer = type(error).__name__
    return f"{answer} {begun} {time.monotonic()}"


def append(driver: Driver, count: str) -> str:
    """As many sign-ins, one append each; when each was acknowledged, by the clock that all processes share."""
    acknowledged = []
    for _ in range(int(count)):
        session_id = driver.sign_in()
        acknowledged.append(f"{session_id}@{time.monotonic()}")
        time.sleep(PACE_S)
    return " ".join(acknowledged)


COMMANDS: dict[str, Callable[..., str]] = {
    command.__name__: command for command in (lead, sign_in, revoke, disable, append, reads, seals, accepted, at)
}


def main(url: str, keys_url: str, master_key_file: str, owner_url: str) -> None:
    stores = Stores(url, keys_url, Path(master_key_file), owner_url or None)
    driver = Driver(Service(stores, Limits(), new_uuid7, ManualClock()))
    for line in sys.stdin:
        name, *words = line.split()
        print(COMMANDS[name](driver, *words), flush=True)
    driver.close()
    driver.service.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
