"""The rules that answer a fact with a command. One class a rule, stateless; acting twice changes nothing."""

from concurrent.futures import Future
from typing import Any, Protocol
from uuid import UUID

from eventsourcing.domain import DomainEventProtocol

from domain.events import Fact, UserDisabled
from domain.ledger import Recorded, Request, SessionLedger
from domain.user import DISABLED, EXPIRY


class Policy(Protocol):
    """Follows the log. `topics` are the facts it answers; all others only advance its position."""

    name: str
    topics: tuple[str, ...]

    def handle(self, fact: DomainEventProtocol[UUID]) -> "Future[Any]":
        """The answer, which ends when it is durable; one that fails is asked for again."""
        ...


class RevokeSessionsOnUserDisabled:
    """When a user is disabled, record the end of every session he had then."""

    name: str = DISABLED.removeprefix("policy:")
    topics: tuple[str, ...] = (UserDisabled.TOPIC,)

    def __init__(self, ledger: SessionLedger) -> None:
        self._ledger = ledger

    def handle(self, fact: DomainEventProtocol[UUID]) -> "Future[Any]":
        assert isinstance(fact, Fact)
        request = Request(actor=DISABLED, correlation_id=fact.correlation_id, causation_id=fact.event_id)
        return self._ledger.revoke_disabled_sessions(fact.originator_id, fact.originator_version, request)


class EndSessionsOnTimeout:
    """The sweeper's rule: a session past its deadline is recorded as ended, though nobody touches its user."""

    def __init__(self, ledger: SessionLedger) -> None:
        self._ledger = ledger

    def end(self, streams: list[UUID], correlation_id: UUID) -> "dict[UUID, Future[Recorded[int]]]":
        """Settle these users: for each, the number of his sessions that this recorded as ended."""
        request = Request(actor=EXPIRY, correlation_id=correlation_id)
        return {stream: self._ledger.end_expired_sessions(stream, request) for stream in streams}
