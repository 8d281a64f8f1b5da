"""The ways through the log: a policy answers what it is for, a projection writes its rows. Each has its position."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

from eventsourcing.persistence import Mapper, StoredEvent
from sqlalchemy import Connection, update
from sqlalchemy.exc import InterfaceError, OperationalError

from domain.errors import LedgerBusy, StoreUnavailable
from domain.policies import Policy
from store.failpoints import Failpoint, reach
from store.log import Record, pages
from store.recorder import Entry, EventRecorder
from store.schema import tracking

BATCH_SIZE = 500
SPAN = 10_000
SAVE_S = 1.0
GATHER_S = 0.1  # what comes within this time is one commit of a projection: on SQLite each is one fsync
TRIES = 6
FIRST_PAUSE_S, LAST_PAUSE_S = 0.05, 5.0
ANSWER_S = 60.0
PASSING = (StoreUnavailable, LedgerBusy, TimeoutError, OperationalError, InterfaceError)


class Projection(Protocol):
    """A read model. `apply` is the same for live events, catch-up and rebuild, and is asked for every event."""

    name: str

    def create_tables(self, connection: Connection) -> None: ...

    def apply(self, connection: Connection, entries: Sequence[Entry]) -> None: ...


class Batch(NamedTuple):
    """What a place takes in one step: what was `found` of the log up to `until`. `head` is where the log ended then."""

    head: int
    begins: int
    until: int
    found: Sequence[Any]

    @property
    def where(self) -> str:
        """For people."""
        return f"{'at' if len(self.found) < 2 else 'in the batch that begins at'} position {self.begins}"


class FenceLost(Exception):
    """Another leader has moved the tracking row: this one must stop."""


class Place:
    """A way through the log. `position` is reached; `saved` is what the tracking row says."""

    is_projection: bool

    def __init__(self, name: str, recorder: EventRecorder, mapper: Mapper[Any]) -> None:
        self.name = name
        self._recorder = recorder
        self._mapper = mapper
        self.start_at(0)

    def start_at(self, position: int) -> None:
        """Go on from here, with all tries left."""
        self.position = self.saved = position
        self.saved_at = 0.0
        self.rate = 0.0
        self.retry()

    def retry(self) -> None:
        self.is_parked = False
        self.failures = 0  # in a row
        self.faults = 0  # those of them that waiting does not cure
        self.not_before = 0.0

    def read(self) -> Batch | None:
        """The next batch; None when there is nothing to do yet."""
        raise NotImplementedError

    def take(self, batch: Batch) -> None:
        """Do what the batch asks for. Whatever this raises has moved nothing."""
        raise NotImplementedError

    def keep(self, batch: Batch) -> None:
        """After what was taken: make the position durable, unless that can wait."""

    def save(self) -> None:
        """Make the position durable."""

    def failed(self, batch: Batch, error: Exception) -> None:
        """Pause before the next try, longer each time."""
        self.failures += 1
        self.faults += not isinstance(error, PASSING)
        self.not_before = time.monotonic() + min(FIRST_PAUSE_S * 2 ** (self.failures - 1), LAST_PAUSE_S)

    @property
    def is_hopeless(self) -> bool:
        return self.faults >= TRIES

    def _moved_to(self, position: int, started: float) -> None:
        self.failures = self.faults = 0
        self.not_before = 0.0
        if position > self.position:
            self.rate = (position - self.position) / max(time.monotonic() - started, 1e-6)
            self.position = position

    def _move_row(self, connection: Connection, position: int) -> None:
        """Move the tracking row on, if it still says what this leader left there."""
        reach(Failpoint.BEFORE_TRACKING)
        mine = (tracking.c.name == self.name) & (tracking.c.position == self.saved)
        if connection.execute(update(tracking).where(mine).values(position=position)).rowcount != 1:
            raise FenceLost(self.name)


class PolicyPlace(Place):
    """Lets a policy answer the facts that it is for; all others only pass. At least once."""

    is_projection = False

    def __init__(self, policy: Policy, recorder: EventRecorder, mapper: Mapper[Any]) -> None:
        super().__init__(policy.name, recorder, mapper)
        self._policy = policy

    def read(self) -> Batch:
        head = self._recorder.max_notification_id() or 0
        until = min(head, self.position + SPAN)
        if until == self.position:
            return Batch(head, until, until, ())
        found = self._recorder.select_notifications(
            self.position, BATCH_SIZE, until, self._policy.topics, inclusive_of_start=False
        )
        begins = found[0].id if found else until
        return Batch(head, begins, found[-1].id if len(found) == BATCH_SIZE else until, found)

    def take(self, batch: Batch) -> None:
        started = time.monotonic()
        answers: list[Future[Any]] = [self._policy.handle(self._mapper.to_domain_event(n)) for n in batch.found]
        for answer in answers:
            answer.result(ANSWER_S)
        self._moved_to(batch.until, started)

    def keep(self, batch: Batch) -> None:
        if batch.found or time.monotonic() - self.saved_at > SAVE_S:
            self.save()

    def save(self) -> None:
        self.saved_at = time.monotonic()
        if self.position != self.saved:
            with self._recorder.database.transaction() as connection:
                self._move_row(connection, self.position)
            self.saved = self.position


class ProjectionPlace(Place):
    """Applies every event once and in order: rows and position in one transaction."""

    is_projection = True

    def __init__(self, projection: Projection, recorder: EventRecorder, mapper: Mapper[Any]) -> None:
        super().__init__(projection.name, recorder, mapper)
        self._projection = projection
        self._careful_until = 0  # a batch that failed is applied event by event, to stop exactly at the one that fails

    def read(self) -> Batch | None:
        head = self._recorder.max_notification_id() or 0
        if head == self.position:
            self.not_before = 0.0
            return None
        if head - self.position < BATCH_SIZE and time.monotonic() < self.saved_at + GATHER_S:
            self.not_before = self.saved_at + GATHER_S
            return None
        size = 1 if self.position < self._careful_until else BATCH_SIZE
        with self._recorder.database.reading() as connection:
            found = next(pages(connection, self.position, head, size), [])
        return Batch(head, found[0].position, found[-1].position, found) if found else None

    def take(self, batch: Batch) -> None:
        started = time.monotonic()
        with self._recorder.database.transaction() as connection:
            self._move_row(connection, batch.until)
            self._projection.apply(connection, [*entries(self._mapper, batch.found)])
        self._moved_to(batch.until, started)
        self.saved, self.saved_at = self.position, time.monotonic()
        self.not_before = self.saved_at + (self.saved_at - started)  # commands come first: it rests as long as it works

    def failed(self, batch: Batch, error: Exception) -> None:
        self._careful_until = batch.until
        super().failed(batch, error)


def entries(mapper: Mapper[Any], records: Sequence[Record]) -> Iterator[Entry]:
    """Records of the log as facts. Raises the mapper's error for one that cannot be read."""
    for position, stream, version, recorded_at, topic, state in records:
        yield Entry(position, recorded_at, mapper.to_domain_event(StoredEvent(stream, version, topic, state)))
