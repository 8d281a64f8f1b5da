"""The one writer of a process: commands queue, are decided and committed in batches, and are answered once durable.

A batch is decided on cached aggregates, then the append lock is taken; one that another process has moved since is read
and decided again, so no refusal and no no-op rests on stale facts. Events, read-model rows, identities, kept answers
and `head` commit in one transaction.
"""

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Protocol, TypeVar
from uuid import UUID

from eventsourcing.persistence import PersistenceError, StoredEvent, Tracking
from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError

from domain.aggregate import Acting
from domain.errors import LedgerBusy, OutcomeUnknown, StoreUnavailable
from domain.ledger import Command, Recorded
from domain.session import Invalidation
from store.aggregates import AggregateCache
from store.clock import Clock
from store.deciding import Decider, KeptAnswers, Pending, StreamWork, by_stream
from store.failpoints import Failpoint, reach
from store.idempotency import find_kept, forget_ended, keep
from store.recorder import Append, Entry, EventRecorder, track, tracked
from store.schema import events, identities
from store.sealing import SealingMapper
from store.snapshots import Snapshotter

logger = logging.getLogger("ledger.writer")

T = TypeVar("T")

QUEUE_SIZE = 4096
BATCH_SIZE = 256
GATHER_S, SIBLINGS = 0.001, 5  # as PostgreSQL's commit_delay and commit_siblings
RECOVERY_S = 5.0
CLOSE_S = 15.0
RETRY_PAUSE_S = 0.1
CATCH_UP_PAGE = 1_000


class InlineProjection(Protocol):
    """A read model whose rows are written in the append transaction. An `apply` that fails refuses the write."""

    name: str

    def apply(self, connection: Connection, entries: Sequence[Entry]) -> None: ...


class BatchWriter:
    """Implements `domain.ledger.Writer`. `submit` never blocks: a full queue answers `LedgerBusy` at once."""

    def __init__(
        self,
        decider: Decider,
        recorder: EventRecorder,
        mapper: SealingMapper,
        projections: Sequence[InlineProjection],
        snapshotter: Snapshotter,
        clock: Clock,
        read_invalidations: Callable[[Connection], tuple[Invalidation, ...]],
    ) -> None:
        self._decider = decider
        self._recorder = recorder
        self._mapper = mapper
        self._projections = projections
        self._snapshotter = snapshotter
        self._clock = clock
        self._read_invalidations = read_invalidations
        self._aggregates = AggregateCache()
        self._head = -1  # as this process last left it; another value means that somebody else has written
        self._queue: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()
        self._came_together = False
        self.batches: Counter[int] = Counter()
        """How many batches of so many commands were recorded; for operators, as the next two."""
        self.appended: Counter[str] = Counter()
        """Events, by topic."""
        self.refused: Counter[str] = Counter()
        """Commands, by the error that they were answered with."""
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def submit(self, command: Command[T]) -> "Future[Recorded[T]]":
        future: Future[Recorded[T]] = Future()
        pending = Pending(command, future)
        with self._closing:
            if self._closed:
                self._refuse([pending], LedgerBusy("The ledger is shutting down."))
            elif self._queue.qsize() >= QUEUE_SIZE:
                self._refuse([pending], LedgerBusy("Too many changes wait already."))
            else:
                self._queue.put(pending)
        return future

    @property
    def waiting(self) -> int:
        """How many commands wait now."""
        return self._queue.qsize()

    def close(self) -> None:
        """Answer everything that was submitted, then stop. A database that hangs is not waited for."""
        with self._closing:
            self._closed = True
        self._queue.put(None)
        self._thread.join(CLOSE_S)

    # -- batches

    def _run(self) -> None:
        while batch := self._next_batch():
            running = [pending for pending in batch if pending.future.set_running_or_notify_cancel()]
            try:
                self._record(running)
            except Exception as error:  # the thread must go on, and nobody may wait for ever
                logger.exception("a batch failed unexpectedly")
                self._head = -1
                self._refuse([pending for pending in running if not pending.future.done()], error)

    def _next_batch(self) -> list[Pending]:
        """What waits now, at least one command; empty once the writer is closed.

        Where commands come together, the next ones are given a moment to come, too: a commit costs what many cost.
        """
        batch = [self._queue.get()]
        if self._came_together:
            time.sleep(GATHER_S)
        while len(batch) < BATCH_SIZE and batch[-1] is not None and not self._queue.empty():
            batch.append(self._queue.get())
        self._came_together = len(batch) >= SIBLINGS
        if batch[-1] is None and len(batch) > 1:
            self._queue.put(None)
        return [pending for pending in batch if pending]

    def _record(self, batch: list[Pending]) -> None:
        """Commit a batch and answer it. One that is refused as a whole is tried again command by command."""
        if not batch:
            return
        try:
            works, position = self._commit_surely(batch)
        except StoreUnavailable as error:
            logger.warning(
                "a batch was not recorded", extra={"fields": {"cause": repr(_database_error(error) or error)}}
            )
            self._head = -1
            self._refuse(batch, error)
        except Exception as error:
            self._head = -1
            if len(batch) > 1:
                for pending in batch:
                    self._record([pending])
            else:
                logger.exception("a command cannot be recorded")
                self._refuse(batch, error)
        else:
            reach(Failpoint.BEFORE_REPLY)
            self.batches[len(batch)] += 1
            for work in works:
                self._remember(work)
                self._answer(work, position)

    def _commit_surely(self, batch: list[Pending]) -> tuple[list[StreamWork], int]:
        """Commit, over one lost connection; what was decided, and a position that is durable with it.

        Raises `StoreUnavailable` when the database does not take it.
        """
        for last_try in (False, True):
            try:
                return self._commit(batch)
            except CommitUnanswered as unanswered:
                if position := self._find_out(unanswered.works):
                    return unanswered.works, position
            except (DBAPIError, PersistenceError, StoreUnavailable) as error:
                if last_try or not _lost_connection(error):
                    if refusal := _as_refusal(error):
                        raise refusal from error
                    raise
            self._head = -1
            self._recorder.database.discard_connections()
        raise StoreUnavailable("The store does not take the change.")

    def _commit(self, batch: list[Pending]) -> tuple[list[StreamWork], int]:
        works = by_stream(batch)
        kept = self._kept(batch)
        known_as = self._cached([work.stream for work in works])
        for work in works:
            self._decider.decide(work, known_as.get(work.stream), kept)
        self._decider.prepare(works)
        with self._appending(works) as append:
            reach(Failpoint.AFTER_LOCK)
            again = {work.stream for work in works if self._decider.is_late(work)}
            if append.position != self._head:
                self._aggregates.clear()  # whoever has written may have moved any of them
                self._catch_up(append)
                kept, known = self._kept(batch), kept
                self._decider.hear(append.recorded_at)
                everybody = self._decider.learn(self._read_invalidations(append.connection))
                again |= {work.stream for work in works if everybody or work.concerns_many}
                again |= self._moved(append, works, kept.keys() - known.keys())
            self._decide_again([work for work in works if work.stream in again], kept)
            self._append(append, works)
        reach(Failpoint.AFTER_COMMIT)
        self._head = append.position
        self._decider.hear(append.recorded_at)
        if any(work.concerns_many for work in works):
            self._head = -1  # the next batch reads anew
        return works, append.position

    @contextmanager
    def _appending(self, works: list[StreamWork]) -> Iterator[Append]:
        """The append lock. A failure of its COMMIT, unlike one before it, leaves open whether the batch is recorded."""
        committing = False
        try:
            with self._recorder.appending() as append:
                yield append
                reach(Failpoint.BEFORE_COMMIT)
                committing = any(work.stored for work in works)
        except DBAPIError as error:
            if committing:
                raise CommitUnanswered(works) from error
            raise

    def _find_out(self, works: list[StreamWork]) -> int | None:
        """A position up to which a batch whose COMMIT went unanswered is in the log; None when it is not there.

        It is there whole or not at all. A row whose wait for a standby was cut is visible but perhaps not replicated:
        a later write to `head`, once committed, proves it.
        """
        first = next(stored for work in works for stored in work.stored)
        self._head = -1  # others may have written since, too
        give_up = time.monotonic() + RECOVERY_S
        while True:
            self._recorder.database.discard_connections()
            try:
                with self._recorder.appending() as append:
                    if found := append.holds(first):
                        append.prove_replicated()
                return append.position if found else None
            except DBAPIError as error:
                if time.monotonic() > give_up:
                    raise OutcomeUnknown("The store does not say whether the change was recorded.") from error
                time.sleep(RETRY_PAUSE_S)

    def _answer(self, work: StreamWork, position: int) -> None:
        self.appended.update(event.topic for event in work.stored)
        for pending in work.pending:
            if pending.refusal:
                self._refuse([pending], pending.refusal)
            else:
                pending.future.set_result(Recorded(pending.result, position, pending.replay))

    def _refuse(self, batch: Sequence[Pending], error: Exception) -> None:
        self.refused[type(error).__name__] += len(batch)
        for pending in batch:
            pending.future.set_exception(error)

    # -- within a batch

    def _cached(self, streams: list[UUID]) -> dict[UUID, Acting]:
        """Aggregates out of the cache; those that are not there are read."""
        cached = self._aggregates.take(streams)
        return cached | self._decider.read([stream for stream in streams if stream not in cached])

    def _remember(self, work: StreamWork) -> None:
        if work.aggregate:
            self._aggregates.put(work.aggregate)
            self._snapshotter.consider(work.aggregate, since=work.base)

    def _kept(self, batch: list[Pending]) -> KeptAnswers:
        keys = [pending.command.claim.key for pending in batch if pending.command.claim]
        if not keys:
            return {}
        with self._recorder.database.reading() as connection:
            return find_kept(connection, keys, self._clock.now())

    def _moved(self, append: Append, works: list[StreamWork], new_answers: set[bytes]) -> set[UUID]:
        """The streams that, or whose idempotency keys, another process has used since they were decided."""
        versions = append.versions([work.stream for work in works])
        return {
            work.stream
            for work in works
            if versions.get(work.stream, 0) != work.base or any(_claims(p, new_answers) for p in work.pending)
        }

    def _decide_again(self, works: list[StreamWork], kept: KeptAnswers) -> None:
        as_committed = self._decider.read([work.stream for work in works])
        for work in works:
            self._decider.decide(work, as_committed.get(work.stream), kept)
        self._decider.prepare(works)

    def _append(self, append: Append, works: list[StreamWork]) -> None:
        stored = [event for work in works for event in work.stored]
        if not stored:
            return
        connection = append.connection
        positions = append.insert(stored, self._clock.micros())
        reach(Failpoint.AFTER_INSERT)
        facts = [fact for work in works for fact in work.sealed]
        if enrolled := [row for work in works for row in work.identities]:
            connection.execute(insert(identities), enrolled)
        self._apply(
            connection, [Entry(*at) for at in zip(positions, [append.recorded_at] * len(facts), facts, strict=True)]
        )
        keep(connection, [answer for work in works for answer in work.answers.values()])
        forget_ended(connection, facts)

    def _apply(self, connection: Connection, entries: Sequence[Entry]) -> None:
        for projection in self._projections:
            projection.apply(connection, entries)
            track(connection, Tracking(projection.name, entries[-1].position))

    def _catch_up(self, append: Append) -> None:
        """Bring each inline read model up to what others appended without it."""
        for projection in self._projections:
            at = tracked(append.connection, projection.name) or 0
            while at < append.position:
                page = self._entries(append.connection, at)
                projection.apply(append.connection, page)
                at = page[-1].position
                track(append.connection, Tracking(projection.name, at))

    def _entries(self, connection: Connection, after: int) -> list[Entry]:
        stored = (events.c.stream, events.c.version, events.c.topic, events.c.state)
        query = select(events.c.position, events.c.recorded_at, *stored).where(events.c.position > after)
        rows = connection.execute(query.order_by(events.c.position).limit(CATCH_UP_PAGE))
        return [Entry(row[0], row[1], self._mapper.to_domain_event(StoredEvent(*row[2:]))) for row in rows]


class CommitUnanswered(Exception):
    """The connection was lost in COMMIT."""

    def __init__(self, works: list[StreamWork]) -> None:
        super().__init__("The outcome of a commit is unknown.")
        self.works = works


def _claims(pending: Pending, keys: set[bytes]) -> bool:
    return pending.command.claim is not None and pending.command.claim.key in keys


def _database_error(error: BaseException | None) -> DBAPIError | None:
    while error and not isinstance(error, DBAPIError):
        error = error.__cause__
    return error if isinstance(error, DBAPIError) else None


def _lost_connection(error: Exception) -> bool:
    cause = _database_error(error)
    return cause is not None and cause.connection_invalidated


def _as_refusal(error: Exception) -> StoreUnavailable | None:
    """A database that fails is `StoreUnavailable`; one that objects to what it was given stays what it is."""
    if isinstance(_database_error(error), OperationalError | InterfaceError | InternalError):
        return StoreUnavailable("The store does not answer or cannot write.")
    return None
