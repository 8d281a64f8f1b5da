"""What a batch asks of each user, and what is decided: facts, answers and refusals, before anything is recorded."""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from eventsourcing.persistence import StoredEvent

from domain.errors import LedgerError, StoreUnavailable
from domain.events import Fact, UserEnrolled
from domain.ledger import Command, Recorded
from domain.user import Context, User
from store.clock import Clock
from store.database import Database
from store.idempotency import KeptAnswer
from store.keys import KeyStore
from store.sealing import SealingMapper, has_personal_data
from store.users import read_users

logger = logging.getLogger("ledger.writer")

KeptAnswers = Mapping[bytes, KeptAnswer]


@dataclass(slots=True)
class Pending:
    """A command that waits for its answer."""

    command: Command[Any]
    future: "Future[Recorded[Any]]"
    result: Any = None
    replay: bytes | None = None
    refusal: Exception | None = None


@dataclass(slots=True)
class UserWork:
    """One user's part of a batch: decided on version `base`, as of a moment before `holds_until`, the next deadline."""

    stream: UUID
    pending: list[Pending] = field(default_factory=list)
    user: User | None = None
    base: int = 0
    holds_until: datetime | None = None
    facts: list[Fact] = field(default_factory=list)
    sealed: list[Fact] = field(default_factory=list)
    stored: list[StoredEvent] = field(default_factory=list)
    answers: dict[bytes, KeptAnswer] = field(default_factory=dict)

    @property
    def identities(self) -> list[dict[str, Any]]:
        """Who was enrolled, in clear."""
        return [{"stream": f.originator_id, "user_id": f.user_id} for f in self.facts if isinstance(f, UserEnrolled)]


def by_user(batch: Sequence[Pending]) -> list[UserWork]:
    """A batch, user by user; each user's commands in the order in which they came."""
    work: dict[UUID, UserWork] = {}
    for pending in batch:
        stream = pending.command.stream
        work.setdefault(stream, UserWork(stream)).pending.append(pending)
    return list(work.values())


class Decider:
    """Runs decisions on users. One that raises is refused alone, and leaves nothing behind."""

    def __init__(
        self,
        database: Database,
        mapper: SealingMapper,
        keys: KeyStore,
        clock: Clock,
        new_event_id: Callable[[], UUID],
    ) -> None:
        self._database = database
        self._mapper = mapper
        self._keys = keys
        self._clock = clock
        self._new_event_id = new_event_id

    def read(self, streams: Sequence[UUID]) -> dict[UUID, User]:
        """Those of these users whom the ledger has heard of, as committed."""
        return read_users(self._database, self._mapper, streams)

    def decide(self, work: UserWork, user: User | None, kept: KeptAnswers) -> None:
        """Decide all that the batch asks of this user, from scratch, on `user`."""
        now = self._clock.now()
        ends = [session.deadline.at for session in user.sessions.values()] if user else []
        work.holds_until = min([end for end in ends if end > now], default=None)
        work.user, work.base = user, user.version if user else 0
        work.facts, work.answers = [], {}
        for pending in work.pending:
            pending.result = pending.replay = pending.refusal = None
            try:
                self._decide_one(pending, work, kept)
            except LedgerError as error:
                pending.refusal = error
            except Exception as error:
                logger.exception("a decision failed")
                pending.refusal = error
            if pending.refusal and work.user and work.user.pending_events:
                work.user = self._without_half_events(work)

    def _decide_one(self, pending: Pending, work: UserWork, kept: KeptAnswers) -> None:
        command, claim, now = pending.command, pending.command.claim, self._clock.now()
        if claim and (answer := work.answers.get(claim.key) or kept.get(claim.key)):
            pending.replay = answer.replay(claim, work.user, now, self._keys)
            return
        context = self._context(command, now)
        user, pending.result = command.decide(work.user and work.user.acting(context), context)
        if claim:
            work.answers[claim.key] = KeptAnswer.first(claim, work.stream, pending.result)
        if user:
            work.user = user
            work.facts.extend(user.collect_events())  # type: ignore[arg-type]

    def _context(self, command: Command[Any], now: datetime) -> Context:
        request = command.request
        return Context(now, request.actor, request.correlation_id, request.causation_id, self._new_event_id)

    def _without_half_events(self, work: UserWork) -> User | None:
        """The user as he was before a decision that raised after it had emitted something."""
        user = self.read([work.stream]).get(work.stream)
        for fact in work.facts:
            user = fact.mutate(user)
        return user

    def is_late(self, work: UserWork) -> bool:
        """Whether a session reached its deadline since: readers may have been shown its end, so it must be recorded."""
        return work.holds_until is not None and self._clock.now() >= work.holds_until

    def prepare(self, works: Sequence[UserWork]) -> None:
        """Make keys durable before what they seal, then turn facts into what is stored.

        Without the key store only those are refused who need a key: an end needs none.
        """
        sealing = [w for w in works if w.answers or any(map(has_personal_data, w.facts))]
        keys: Mapping[UUID, bytes] = {}
        try:
            if sealing:
                keys = self._keys.ensure(work.stream for work in sealing)
        except StoreUnavailable as error:
            for work in sealing:
                _refuse(work, error)
        for work in works:
            work.sealed = [self._mapper.seal(fact, keys) for fact in work.facts]
            work.stored = [self._mapper.to_stored_event(fact) for fact in work.sealed]
            work.answers = {key: answer.sealed(keys) for key, answer in work.answers.items()}


def _refuse(work: UserWork, error: StoreUnavailable) -> None:
    """Drop what was decided."""
    work.user, work.facts, work.answers = None, [], {}
    for pending in work.pending:
        pending.refusal = pending.refusal or error
