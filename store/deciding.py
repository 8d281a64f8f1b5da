"""What a batch asks of each stream, and what is decided: facts, answers and refusals, before anything is recorded."""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from eventsourcing.persistence import StoredEvent

from domain.aggregate import Acting, Context
from domain.errors import LedgerError, StoreUnavailable
from domain.events import Fact, SessionRevocationRequested, SessionsInvalidatedBefore, UserEnrolled
from domain.ledger import Command, Recorded
from domain.session import Invalidation
from store.aggregates import read_aggregates
from store.clock import Clock, from_micros
from store.database import Database
from store.idempotency import KeptAnswer
from store.keys import KeyErased, KeyStore
from store.sealing import SealingMapper, has_personal_data

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
class StreamWork:
    """A stream's part of a batch: decided on version `base`, as of a moment before `holds_until`, the next deadline."""

    stream: UUID
    pending: list[Pending] = field(default_factory=list)
    aggregate: Acting | None = None
    base: int = 0
    holds_until: datetime | None = None
    facts: list[Fact] = field(default_factory=list)
    sealed: list[Fact] = field(default_factory=list)
    stored: list[StoredEvent] = field(default_factory=list)
    answers: dict[bytes, KeptAnswer] = field(default_factory=dict)

    @property
    def concerns_many(self) -> bool:
        """Whether it is about sessions that other processes may just have recorded."""
        return any(isinstance(f, SessionsInvalidatedBefore | SessionRevocationRequested) for f in self.facts)

    @property
    def identities(self) -> list[dict[str, Any]]:
        """Who was enrolled, in clear."""
        return [{"stream": f.originator_id, "user_id": f.user_id} for f in self.facts if isinstance(f, UserEnrolled)]


def by_stream(batch: Sequence[Pending]) -> list[StreamWork]:
    """A batch, stream by stream; each one's commands in the order in which they came."""
    work: dict[UUID, StreamWork] = {}
    for pending in batch:
        stream = pending.command.stream
        work.setdefault(stream, StreamWork(stream)).pending.append(pending)
    return list(work.values())


class Decider:
    """Runs decisions on aggregates, mostly users. One that raises is refused alone, and leaves nothing behind."""

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
        self._invalidations: tuple[Invalidation, ...] = ()
        self._not_before = 0

    def read(self, streams: Sequence[UUID]) -> dict[UUID, Acting]:
        """Those of these streams that there are, as committed."""
        return read_aggregates(self._database, self._mapper, streams)

    def learn(self, invalidations: tuple[Invalidation, ...]) -> bool:
        """Decide with these from now on; whether they are others than before."""
        changed = invalidations != self._invalidations
        self._invalidations = invalidations
        return changed

    def hear(self, recorded_at: int) -> None:
        """Something was recorded then (microseconds): nothing is decided as of an earlier moment from now on."""
        self._not_before = max(self._not_before, recorded_at)

    def decide(self, work: StreamWork, aggregate: Acting | None, kept: KeptAnswers) -> None:
        """Decide all that the batch asks of this stream, from scratch, on `aggregate`."""
        work.holds_until = aggregate.next_deadline(self._clock.now()) if aggregate else None
        work.aggregate, work.base = aggregate, aggregate.version if aggregate else 0
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
            if pending.refusal and work.aggregate and work.aggregate.pending_events:
                work.aggregate = self._without_half_events(work)

    def _decide_one(self, pending: Pending, work: StreamWork, kept: KeptAnswers) -> None:
        command, claim = pending.command, pending.command.claim
        context = self._context(command)
        if claim and (answer := work.answers.get(claim.key) or kept.get(claim.key)):
            pending.replay = answer.replay(claim, work.aggregate, context, self._keys)
            return
        aggregate, pending.result = command.decide(work.aggregate and work.aggregate.acting(context), context)
        if claim:
            work.answers[claim.key] = KeptAnswer.first(claim, work.stream, pending.result)
        if aggregate:
            work.aggregate = aggregate
            work.facts.extend(aggregate.collect_events())  # type: ignore[arg-type]

    def _context(self, command: Command[Any]) -> Context:
        """The clock of another process may be ahead of ours. What begins after an invalidation is not ended by it."""
        request, now = command.request, from_micros(max(self._clock.micros(), self._not_before))
        if self._invalidations:
            now = max(now, *(invalidation.before for invalidation in self._invalidations))
        return Context(
            now, request.actor, request.correlation_id, request.causation_id, self._new_event_id, self._invalidations
        )

    def _without_half_events(self, work: StreamWork) -> Acting | None:
        """The aggregate as it was before a decision that raised after it had emitted something."""
        aggregate = self.read([work.stream]).get(work.stream)
        for fact in work.facts:
            aggregate = fact.mutate(aggregate)
        return aggregate

    def is_late(self, work: StreamWork) -> bool:
        """Whether a session reached its deadline since: readers may have been shown its end, so it must be recorded."""
        return work.holds_until is not None and self._clock.now() >= work.holds_until

    def prepare(self, works: Sequence[StreamWork]) -> None:
        """Make keys durable before what they seal, then turn facts into what is stored.

        Without the key store only those are refused who need a key: an end needs none.
        """
        keys = self._keys_for([w for w in works if w.answers or any(map(has_personal_data, w.facts))])
        for work in works:
            work.sealed = [self._mapper.seal(fact, keys) for fact in work.facts]
            work.stored = [self._mapper.to_stored_event(fact) for fact in work.sealed]
            work.answers = {key: answer.sealed(keys) for key, answer in work.answers.items()}

    def _keys_for(self, works: Sequence[StreamWork]) -> Mapping[UUID, bytes]:
        """The keys that these need; those that get none are refused."""
        if not works:
            return {}
        try:
            return self._keys.ensure(work.stream for work in works)
        except KeyErased as error:  # another process has erased them since: its `UserErased` comes under the lock
            for work in works:
                if work.stream in error.streams:
                    _refuse(work, error)
            return self._keys_for([work for work in works if work.stream not in error.streams])
        except StoreUnavailable as error:
            for work in works:
                _refuse(work, error)
            return {}


def _refuse(work: StreamWork, error: LedgerError) -> None:
    """Drop what was decided."""
    work.aggregate, work.facts, work.answers = None, [], {}
    for pending in work.pending:
        pending.refusal = pending.refusal or error
