"""A writer for the domain's tests: records at once, in the library's own in-memory recorder."""

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any
from uuid import UUID

from eventsourcing.application import AggregateNotFoundError
from eventsourcing.persistence import Mapper, Transcoder
from eventsourcing.popo import POPOFactory

from domain.errors import LedgerError
from domain.events import Fact
from domain.ledger import Command, Recorded, SessionLedger
from domain.session import Limits
from domain.user import User
from store.sealing import SealingMapper
from tests.domain.story import LIMITS, context, plain, stream_of


class OneKey:
    """Every user's key is the same."""

    def ensure(self, streams: Iterable[UUID]) -> Mapping[UUID, bytes]:
        return dict.fromkeys(streams, bytes(32))


class InMemory(POPOFactory):
    def mapper(self, transcoder: Transcoder | None = None, mapper_class: Any = None) -> Mapper[Any]:
        return SealingMapper(OneKey())


class DirectWriter:
    """Stands at the moment `now`, in seconds since noon. `facts` is all that it recorded, personal data in clear.

    A decision may run again, and only its last run counts: so each runs once in vain here, on a user of its own.
    """

    def __init__(self, ledger: SessionLedger) -> None:
        self._ledger = ledger
        self.now = 0.0
        self.facts: list[Fact] = []
        self.commands: list[Command[Any]] = []

    def submit(self, command: Command[Any]) -> "Future[Recorded[Any]]":
        self.commands.append(command)
        future: Future[Recorded[Any]] = Future()
        try:
            future.set_result(self._record(command))
        except LedgerError as refusal:
            future.set_exception(refusal)
        return future

    def _record(self, command: Command[Any]) -> Recorded[Any]:
        self._decide(command)
        user, result = self._decide(command)
        if user:
            facts = [plain(fact) for fact in user.pending_events]
            self._ledger.save(user)
            self.facts.extend(facts)
        return Recorded(result, len(self.facts))

    def _decide(self, command: Command[Any]) -> tuple[User | None, Any]:
        try:
            user: User | None = self._ledger.repository.get(command.stream)
        except AggregateNotFoundError:
            user = None
        request = command.request
        acting = context(
            self.now,
            user.version if user else 0,
            by=request.actor,
            cause=request.causation_id,
            stream=command.stream,
            request=request.correlation_id,
        )
        return command.decide(user and user.acting(acting), acting)


def new_ledger(limits: Limits = LIMITS) -> tuple[SessionLedger, DirectWriter]:
    ledger = SessionLedger(InMemory(None), stream_of, limits)
    writer = DirectWriter(ledger)
    ledger.writes_through(writer)
    return ledger, writer
