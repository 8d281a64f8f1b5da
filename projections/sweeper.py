"""Ends by time, and of everybody at once, for users whom nobody touches: a chore of the process that leads."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from uuid import UUID

from domain.ledger import Recorded
from domain.policies import EndSessionsOnTimeout
from projections.follower import Follower
from projections.places import ANSWER_S
from projections.session_views import streams_to_settle
from store.audit_access import HOUR, forget_old_accesses
from store.clock import MAX_DRIFT_S, Clock, to_micros
from store.database import Database
from store.idempotency import forget_old

INTERVAL_S = 30.0
RESTS = 9
"""Times as long as a turn took: each looks at all live sessions, a second or more for a million."""
PAGE = 500

logger = logging.getLogger("ledger.sweeper")


class Sweeper:
    """Access never depends on it: a session past its deadline is refused whether or not it was swept.

    It pauses while wall and clock disagree, so that a wrong clock ends no session for good (F-17).
    """

    def __init__(
        self,
        database: Database,
        rule: EndSessionsOnTimeout,
        follower: Follower,
        clock: Clock,
        new_id: Callable[[], UUID],
    ) -> None:
        self._database = database
        self._rule = rule
        self._follower = follower
        self._clock = clock
        self._new_id = new_id
        self._hour = -1
        self._stopping = threading.Event()
        self._awake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger-sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._awake.set()
        if self._thread.is_alive():
            self._thread.join()

    def wake(self) -> None:
        """Sweep now rather than at the next turn."""
        self._awake.set()

    def sweep(self) -> int:
        """End what time has ended by now, and forget what is too old; the number of sessions ended.

        A user whose sessions cannot be ended is told in the log, and holds up nobody else.
        """
        correlation_id, now = self._new_id(), self._clock.now()
        after: UUID | None = None
        ended = 0
        while not self._stopping.is_set():
            with self._database.reading() as connection:
                streams = streams_to_settle(connection, now, after, PAGE)
            if not streams:
                break
            ended += sum(map(self._count, streams, self._rule.end(streams, correlation_id).values()))
            after = streams[-1]
        with self._database.transaction() as connection:
            forget_old(connection, now)
            if self._hour != (hour := to_micros(now) // HOUR):
                forget_old_accesses(connection, to_micros(now))
        self._hour = hour
        return ended

    def _count(self, stream: UUID, ending: "Future[Recorded[int]]") -> int:
        try:
            return ending.result(ANSWER_S).result
        except Exception as error:
            logger.error("a user's sessions were not ended", extra={"fields": {"stream": stream, "error": repr(error)}})
            return 0

    def _run(self) -> None:
        took = 0.0
        while not self._stopping.is_set():
            self._awake.wait(max(INTERVAL_S, RESTS * took))
            self._awake.clear()
            if self._stopping.is_set() or not self._follower.is_leading:
                continue
            if abs(self._clock.drift_s()) > MAX_DRIFT_S:
                logger.error(
                    "wall and clock disagree, so nothing is swept", extra={"fields": {"drift_s": self._clock.drift_s()}}
                )
                continue
            began = time.monotonic()
            try:
                self.sweep()
            except Exception as error:
                logger.warning("sweeping failed, trying again later", extra={"fields": {"error": repr(error)}})
            took = time.monotonic() - began
