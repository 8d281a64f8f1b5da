"""The ledger alone, without HTTP: durable commands a second, many in flight, over a few hundred users."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import chain
from queue import SimpleQueue
from typing import Any
from uuid import UUID

from api.credentials import new_token
from api.ids import new_uuid7
from api.service import Service
from domain.events import EndReason
from domain.ledger import Recorded, Request
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
    return [*alone, rate(service, "one of each", list(chain.from_iterable(mixed)))]


class Sessions:
    """Sessions as they are made, and commands about them, ready to be sent: who calls is made up beforehand."""

    def __init__(self, service: Service) -> None:
        self._ledger = service.ledger
        self._pseudonym = service.keys.pseudonym
        self._made: list[tuple[UUID, UUID]] = []

    def creates(self, count: int) -> list[Command]:
        commands: list[Command] = []
        for number in range(count):
            user_id, said = f"user-{number % USERS}@example.com", sign_in(new_token())
            self._made.append((self._pseudonym(user_id), said.session_id))
            commands.append(partial(self._ledger.create_session, user_id, said, _request()))
        return commands

    def touches(self) -> list[Command]:
        return [partial(self._ledger.touch_session, stream, made, _request()) for stream, made in self._made]

    def revokes(self) -> list[Command]:
        reason = EndReason.REVOKED_BY_USER
        return [partial(self._ledger.revoke_session, stream, made, reason, _request()) for stream, made in self._made]


def _request() -> Request:
    return Request("key:bench", new_uuid7())


def rate(service: Service, name: str, commands: Sequence[Command]) -> CommandRate:
    before = service.recorder.max_notification_id() or 0
    answered: SimpleQueue[Future[Recorded[Any]]] = SimpleQueue()
    sent, done, started = 0, 0, time.perf_counter()
    while done < len(commands):
        for command in commands[sent : done + IN_FLIGHT]:
            command().add_done_callback(answered.put)
            sent += 1
        for _ in range(max(1, answered.qsize())):
            answered.get().result()
            done += 1
    seconds = time.perf_counter() - started
    return CommandRate(name, done / seconds, done, (service.recorder.max_notification_id() or 0) - before)
