"""Moves events on: reads the log behind each policy and projection, lets it take what is next, advances its position.

In order, in batches: a policy at least once, a projection once. One that keeps failing is parked where it fails, loudly
and in a table that every process reads, and stops only itself; nothing is skipped. It tries again when its row in
`parked` is gone, or another process takes the lead.
"""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eventsourcing.persistence import Mapper
from sqlalchemy import Connection, select

from domain.policies import Policy
from projections.leadership import Leadership, leadership
from projections.parking import Parked, park, parked_now, resume_all
from projections.places import Batch, FenceLost, Place, PolicyPlace, Projection, ProjectionPlace
from store.clock import Clock
from store.recorder import EventRecorder, tracked
from store.schema import events, tracking

IDLE_S = 1.0
PACE_S = 0.02  # a busy log is looked at so often, however many small commits it takes

logger = logging.getLogger("ledger.follower")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one has come. `lag_seconds` is the age of the oldest event that it has not seen; `rate` is events/s."""

    name: str
    position: int
    lag_events: int
    lag_seconds: float
    rate: float
    parked: str | None
    is_projection: bool = False


class Follower:
    """A thread that follows while it leads. `is_leading` is what the sweeper asks, too."""

    def __init__(
        self,
        recorder: EventRecorder,
        mapper: Mapper[Any],
        policies: Sequence[Policy],
        clock: Clock,
        projections: Sequence[Projection] = (),
    ) -> None:
        self._recorder = recorder
        self._clock = clock
        self._places: list[Place] = [PolicyPlace(policy, recorder, mapper) for policy in policies]
        self._places += [ProjectionPlace(projection, recorder, mapper) for projection in projections]
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
        """How far each has come, read from the database: right in every process, leading or not."""
        with self._recorder.database.reading() as connection:
            stopped = parked_now(connection)
            reached = [self._reached(place, connection) for place in self._places]
            head = self._recorder.max_notification_id() or 0  # after the positions, so that none is beyond it
            return [
                self._progress(place, position, connection, head, stopped.get(place.name))
                for place, position in zip(self._places, reached, strict=True)
            ]

    def _reached(self, place: Place, connection: Connection) -> int:
        return place.position if self.is_leading else tracked(connection, place.name) or 0

    def _progress(
        self, place: Place, position: int, connection: Connection, head: int, stopped: Parked | None
    ) -> Progress:
        next_event = select(events.c.recorded_at).where(events.c.position == position + 1)
        waiting_since = connection.execute(next_event).scalar() if head > position else None
        lag_s = (self._clock.micros() - waiting_since) / 1e6 if waiting_since else 0.0
        reason = stopped.reason if stopped else None
        return Progress(place.name, position, head - position, max(lag_s, 0.0), place.rate, reason, place.is_projection)

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
                    place.save()
        except Exception as error:
            logger.warning("positions were not saved", extra={"fields": {"error": repr(error)}})
        self._lose_lead()

    def _load_positions(self) -> None:
        """Begin where each was left. Those that were parked try again: what is newly started may be what cures them."""
        with self._recorder.database.transaction() as connection:
            resume_all(connection)
            for place in self._places:
                position = tracked(connection, place.name)
                if position is None:
                    connection.execute(tracking.insert().values(name=place.name, position=0))
                place.start_at(position or 0)

    def _step(self) -> bool:
        """One batch for each; whether there is more to do at once."""
        self._resume_who_may()
        more = [self._advance(place) for place in self._places]
        return any(more)

    def _resume_who_may(self) -> None:
        waiting = [place for place in self._places if place.is_parked]
        if not waiting:
            return
        with self._recorder.database.reading() as connection:
            stopped = parked_now(connection)
        for place in waiting:
            if place.name not in stopped:
                place.retry()

    def _wait_s(self) -> float:
        now = time.monotonic()
        pauses = [place.not_before - now for place in self._places if place.not_before and not place.is_parked]
        return max(0.0, min([IDLE_S, *pauses]))

    def _advance(self, place: Place) -> bool:
        if place.is_parked or time.monotonic() < place.not_before:
            return False
        batch = place.read()
        if batch is None:
            return False
        try:
            place.take(batch)
        except FenceLost:
            raise
        except Exception as error:
            self._failed(place, batch, error)
            return False
        place.keep(batch)
        return place.position < batch.head

    def _failed(self, place: Place, batch: Batch, error: Exception) -> None:
        place.failed(batch, error)
        kind = "projection" if place.is_projection else "policy"
        details = {kind: place.name, "after_position": place.position, "error": repr(error)}
        if not place.is_hopeless:
            logger.warning(f"a {kind} failed, trying again", extra={"fields": details})
            return
        logger.error(f"a {kind} is parked: it goes no further until it is resumed", extra={"fields": details})
        reason = f"{error!r} {batch.where}"
        with self._recorder.database.transaction() as connection:
            park(connection, Parked(place.name, place.position, reason, self._clock.micros()))
        place.is_parked = True
