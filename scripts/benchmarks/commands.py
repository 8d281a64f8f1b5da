"""The ledger alone, without HTTP: durable commands a second, many in flight, over a few hundred users."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from typing import Any

from api.credentials import new_token
from api.ids import new_uuid7
from api.service import Service
from domain.events import EndReason
from domain.ledger import Recorded, Request
from domain.session import Session
from scripts.benchmarks.databases import Kind
from scripts.benchmarks.seeding import sign_in

USERS, IN_FLIGHT = 500, 256
SETTINGS = {"LEDGER_TOUCH_INTERVAL": "0", "LEDGER_MAX_SESSIONS_PER_USER": "1000"}
TARGETS = {Kind.SQLITE: 10_000, Kind.POSTGRESQL: 7_000}

Command = Callable[[], "Future[Recorded[Any]]"]


@dataclass(frozen=True)
class CommandRate:
    """`events` is how many the commands recorded, so that a command which records nothing shows."""

    name: str
    rate: float
    commands: int
    events: int


def measure(service: Service, count: int) -> list[CommandRate]:
    """Sign-ins, recorded touches and ends of so many sessions, one kind after the other, then one of each in turn."""
    first, second = Sessions(service), Sessions(service)
    alone = [
        rate(service, "create", first.creates(count)),
        rate(service, "touch", first.touches()),
        rate(service, "revoke", first.revokes()),
    ]
    rate(service, "preparation", second.creates(count))
    mixed = zip(Sessions(service).creates(count), second.touches(), second.revokes(), strict=True)
    return [*alone, rate(service, "one of each", (command for three in mixed for command in three))]


class Sessions:
    """Sessions as they are made, and commands about them."""

    def __init__(self, service: Service) -> None:
        self._ledger = service.ledger
        self._pseudonym = service.keys.pseudonym
        self._made: list[tuple[str, Future[Recorded[Session]]]] = []

    def creates(self, count: int) -> Iterator[Command]:
        for number in range(count):
            user_id, token = f"user-{number % USERS}@example.com", new_token()

            def create(user_id: str = user_id, token: str = token) -> "Future[Recorded[Session]]":
                made = self._ledger.create_session(user_id, sign_in(token), _request())
                self._made.append((user_id, made))
                return made

            yield create

    def touches(self) -> Iterator[Command]:
        for user_id, made in self._made:
            stream, session_id = self._pseudonym(user_id), made.result().result.session_id
            yield lambda stream=stream, session_id=session_id: self._ledger.touch_session(  # type: ignore[misc]
                stream, session_id, _request()
            )

    def revokes(self) -> Iterator[Command]:
        for user_id, made in self._made:
            stream, session_id = self._pseudonym(user_id), made.result().result.session_id
            yield lambda stream=stream, session_id=session_id: self._ledger.revoke_session(  # type: ignore[misc]
                stream, session_id, EndReason.REVOKED_BY_USER, _request()
            )


def _request() -> Request:
    return Request("key:bench", new_uuid7())


def rate(service: Service, name: str, commands: Iterator[Command]) -> CommandRate:
    before = service.recorder.max_notification_id() or 0
    answered: SimpleQueue[Future[Recorded[Any]]] = SimpleQueue()
    started, count, in_flight = time.perf_counter(), 0, 0
    while in_flight or not count:
        for command in islice(commands, IN_FLIGHT - in_flight):
            command().add_done_callback(answered.put)
            in_flight += 1
        for _ in range(max(1, answered.qsize())):
            answered.get().result()
            count, in_flight = count + 1, in_flight - 1
    seconds = time.perf_counter() - started
    return CommandRate(name, count / seconds, count, (service.recorder.max_notification_id() or 0) - before)
