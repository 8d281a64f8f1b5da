"""Moves events on: reads the log behind each policy's position, lets it answer, then advances that position.

At least once, in order, in batches. A policy that keeps failing on one event is parked there, loudly, and stops only
itself; nothing is skipped. A restart tries again.
"""

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from eventsourcing.persistence import Mapper, Notification
from sqlalchemy import select, update

from domain.errors import LedgerBusy, StoreUnavailable
from domain.policies import Policy
from projections.leadership import Leadership, leadership
from store.clock import Clock
from store.failpoints import Failpoint, reach
from store.recorder import EventRecorder, tracked
from store.schema import events, tracking

BATCH_SIZE = 500
SPAN = 10_000
IDLE_S = 1.0
PACE_S = 0.02  # a busy log is looked at so often, however many small commits it takes
SAVE_S = 1.0
TRIES = 6
FIRST_PAUSE_S, LAST_PAUSE_S = 0.05, 5.0
ANSWER_S = 60.0
PASSING = (StoreUnavailable, LedgerBusy, TimeoutError)

logger = logging.getLogger("ledger.follower")


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a policy is. `lag_seconds` is the age of the oldest event that it has not seen; `rate` is events/s."""

    name: str
    position: int
    lag_events: int
    lag_seconds: float
    rate: float
    parked: str | None


class Place:
    """A policy's way through the log. `position` is reached; `saved` is what the tracking row says."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.position = self.saved = 0
        self.saved_at = 0.0
        self.failures = 0  # in a row
        self.faults = 0  # those of them that waiting does not cure
        self.not_before = 0.0
        self.parked: str | None = None
        self.rate = 0.0

    @property
    def pause_s(self) -> float:
        return min(FIRST_PAUSE_S * 2 ** (self.failures - 1), LAST_PAUSE_S) if self.failures else 0.0


class FenceLost(Exception):
    """Another leader has moved the tracking row: this one must stop."""


class Follower:
    """A thread that follows while it leads. `is_leading` is what the sweeper asks, too."""

    def __init__(self, recorder: EventRecorder, mapper: Mapper[Any], policies: Sequence[Policy], clock: Clock) -> None:
        self._recorder = recorder
        self._mapper = mapper
        self._clock = clock
        self._places = [Place(policy) for policy in policies]
        self._leadership: Leadership = leadership(recorder.database)
        self.is_leading = False
        self._stopped = threading.Event()
        self._awake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger-follower", daemon=True)

    def start(self) -> None:
        self._recorder.wakeup.add(self._awake.set)
        self._thread.start()

    def close(self) -> None:
        """Finish the batch at hand, save the positions, give the lead up."""
        self._stopped.set()
        self._awake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._recorder.wakeup.remove(self._awake.set)

    def progress(self) -> list[Progress]:
        """How far each policy has come, read from the database: right in every process, leading or not."""
        with self._recorder.database.reading() as connection:
            head = self._recorder.max_notification_id() or 0
            return [self._progress(place, connection, head) for place in self._places]

    def _progress(self, place: Place, connection: Any, head: int) -> Progress:
        position = place.position if self.is_leading else tracked(connection, place.policy.name) or 0
        next_event = select(events.c.recorded_at).where(events.c.position == position + 1)
        waiting_since = connection.execute(next_event).scalar() if head > position else None
        lag_s = (self._clock.micros() - waiting_since) / 1e6 if waiting_since else 0.0
        return Progress(place.policy.name, position, head - position, max(lag_s, 0.0), place.rate, place.parked)

    # -- the loop

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._awake.clear()
            try:
                more = self._lead() and self._step()
            except FenceLost:
                logger.warning("another process follows the log")
                self._lose_lead()
                more = False
            except Exception as error:
                logger.warning("following failed, trying again", extra={"fields": {"error": repr(error)}})
                self._recorder.database.discard_connections()
                self._lose_lead()
                more = False
            if not more:
                self._awake.wait(self._wait_s())
                self._stopped.wait(PACE_S)
        self._finish()

    def _lead(self) -> bool:
        held = self._leadership.is_held()
        if held and not self.is_leading:
            self._load_positions()
        self.is_leading = held
        return held

    def _lose_lead(self) -> None:
        self._leadership.release()
        self.is_leading = False

    def _finish(self) -> None:
        try:
            if self.is_leading:
                for place in self._places:
                    self._save(place)
        except Exception as error:
            logger.warning("positions were not saved", extra={"fields": {"error": repr(error)}})
        self._lose_lead()

    def _load_positions(self) -> None:
        with self._recorder.database.transaction() as connection:
            for place in self._places:
                position = tracked(connection, place.policy.name)
                if position is None:
                    connection.execute(tracking.insert().values(name=place.policy.name, position=0))
                place.position = place.saved = position or 0

    def _step(self) -> bool:
        """One batch for each policy; whether there is more to do at once."""
        more = [self._advance(place) for place in self._places]
        return any(more)

    def _wait_s(self) -> float:
        now = time.monotonic()
        return max(0.0, min([IDLE_S, *(p.not_before - now for p in self._places if p.failures and not p.parked)]))

    def _advance(self, place: Place) -> bool:
        if place.parked or time.monotonic() < place.not_before:
            return False
        started = time.monotonic()
        head, until, answered = self._next(place)
        try:
            self._let_answer(place.policy, answered)
        except Exception as error:
            self._failed(place, answered, error)
            return False
        place.failures = place.faults = 0
        if until > place.position:
            place.rate = (until - place.position) / max(time.monotonic() - started, 1e-6)
            place.position = until
        if answered or started - place.saved_at > SAVE_S:
            self._save(place)
        return until < head

    def _next(self, place: Place) -> tuple[int, int, Sequence[Notification]]:
        """The end of the log, how far the next batch goes, and what the policy answers in it; all else only passes."""
        head = self._recorder.max_notification_id() or 0
        until = min(head, place.position + SPAN)
        if until == place.position:
            return head, until, ()
        answered = self._recorder.select_notifications(
            place.position, BATCH_SIZE, until, place.policy.topics, inclusive_of_start=False
        )
        return head, answered[-1].id if len(answered) == BATCH_SIZE else until, answered

    def _let_answer(self, policy: Policy, batch: Sequence[Notification]) -> None:
        answers: list[Future[Any]] = [policy.handle(self._mapper.to_domain_event(n)) for n in batch]
        for answer in answers:
            answer.result(ANSWER_S)

    def _failed(self, place: Place, batch: Sequence[Notification], error: Exception) -> None:
        place.failures += 1
        place.faults += not isinstance(error, PASSING)
        place.not_before = time.monotonic() + place.pause_s
        details = {"policy": place.policy.name, "after_position": place.position, "error": repr(error)}
        if isinstance(error, PASSING) or place.faults < TRIES:
            logger.warning("a policy failed, trying again", extra={"fields": details})
            return
        first = batch[0].id if batch else place.position + 1
        logger.error("a policy is parked: it answers nothing until a restart", extra={"fields": details})
        place.parked = f"{error!r} in the batch that begins at position {first}"

    def _save(self, place: Place) -> None:
        """Move the tracking row on, if it still says what this leader left there."""
        place.saved_at = time.monotonic()
        if place.position == place.saved:
            return
        reach(Failpoint.BEFORE_TRACKING)
        mine = (tracking.c.name == place.policy.name) & (tracking.c.position == place.saved)
        with self._recorder.database.transaction() as connection:
            if connection.execute(update(tracking).where(mine).values(position=place.position)).rowcount != 1:
                raise FenceLost(place.policy.name)
        place.saved = place.position
