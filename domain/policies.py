"""The rules that answer a fact with a command. One class a rule, stateless; acting twice changes nothing."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from eventsourcing.domain import DomainEventProtocol

from domain.events import (
    EndReason,
    Fact,
    SessionRevocationRequested,
    SessionsInvalidatedBefore,
    UserDisabled,
    UserErased,
)
from domain.ledger import Recorded, Request, SessionLedger
from domain.user import DISABLED, EXPIRY, INVALIDATED

PATIENCE_S = 60.0


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


class RevokeSessionsOnRevocationRequested:
    """When the sessions of many are to end, end them, user by user, on behalf of who asked."""

    name: str = "revoke-sessions-on-revocation-requested"
    topics: tuple[str, ...] = (SessionRevocationRequested.TOPIC,)

    def __init__(self, ledger: SessionLedger) -> None:
        self._ledger = ledger

    def handle(self, fact: DomainEventProtocol[UUID]) -> "Future[Any]":
        assert isinstance(fact, SessionRevocationRequested)
        request = Request(fact.actor, fact.correlation_id, fact.event_id)
        done = self.carry_out(fact.users, fact.before, fact.reason, request)
        wait([done], PATIENCE_S)  # one job at a time: together, those that piled up would not fit into the queue
        return done

    def carry_out(
        self, users: Sequence[UUID], before: datetime, reason: EndReason, request: Request
    ) -> "Future[Recorded[int]]":
        """What is left of the job: how many sessions this ended, once all of it is durable."""
        return _when_all([self._ledger.revoke_sessions_before(user, before, reason, request) for user in users])


class EndSessionsOnSessionsInvalidated:
    """When everybody was signed out at once, have the ends recorded at once. Access does not depend on it."""

    name: str = INVALIDATED.removeprefix("policy:")
    topics: tuple[str, ...] = (SessionsInvalidatedBefore.TOPIC,)

    def __init__(self, record_ends: Callable[[], None]) -> None:
        self._record_ends = record_ends

    def handle(self, fact: DomainEventProtocol[UUID]) -> "Future[Any]":
        self._record_ends()
        return _when_all([])


class DestroyKeyOnUserErased:
    """When a user is erased, destroy his key, and whatever beside the log names him; again, until it is done."""

    name: str = "destroy-key-on-user-erased"
    topics: tuple[str, ...] = (UserErased.TOPIC,)

    def __init__(self, destroy: Callable[[UUID], None]) -> None:
        self._destroy = destroy

    def handle(self, fact: DomainEventProtocol[UUID]) -> "Future[Any]":
        self._destroy(fact.originator_id)
        return _when_all([])


class EndSessionsOnTimeout:
    """The sweeper's rule: a session past its deadline is recorded as ended, though nobody touches its user."""

    def __init__(self, ledger: SessionLedger) -> None:
        self._ledger = ledger

    def end(self, streams: list[UUID], correlation_id: UUID) -> "dict[UUID, Future[Recorded[int]]]":
        """Settle these users: for each, the number of his sessions that this recorded as ended."""
        request = Request(actor=EXPIRY, correlation_id=correlation_id)
        return {stream: self._ledger.end_expired_sessions(stream, request) for stream in streams}


def _when_all(answers: "Sequence[Future[Recorded[int]]]") -> "Future[Recorded[int]]":
    """The sum of the answers, at the last of their positions, once all are there; or the first error among them."""
    whole: Future[Recorded[int]] = Future()
    whole.set_running_or_notify_cancel()  # what it stands for is under way, and cannot be taken back
    left, lock = len(answers), threading.Lock()

    def one_is_there(_: "Future[Recorded[int]]") -> None:
        nonlocal left
        with lock:
            left -= 1
            is_last = left == 0
        if is_last:
            finish()

    def finish() -> None:
        failed = next((error for answer in answers if (error := answer.exception())), None)
        if failed:
            whole.set_exception(failed)
        else:
            done = [answer.result() for answer in answers]
            whole.set_result(Recorded(sum(d.result for d in done), max((d.position for d in done), default=0)))

    for answer in answers:
        answer.add_done_callback(one_is_there)
    if not answers:
        finish()
    return whole
