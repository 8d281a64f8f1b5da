"""Snapshots of users with long histories, so that a first command after a restart reads few rows.

Taken after the commit, off the writer's path; only the newest is kept. Losing one costs time and nothing else.
"""

import logging
import queue
import threading
from contextlib import suppress

from domain.aggregate import Acting
from domain.user import User, UserSnapshot
from store.recorder import SnapshotRecorder
from store.sealing import SealingMapper

EVERY = 250
WAITING = 256
CLOSE_S = 3.0

logger = logging.getLogger("ledger.snapshots")


class Snapshotter:
    """Writes in a thread of its own. When it falls behind, snapshots are left out."""

    def __init__(self, recorder: SnapshotRecorder, mapper: SealingMapper) -> None:
        self._recorder = recorder
        self._mapper = mapper
        self._queue: queue.Queue[UserSnapshot | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name="ledger-snapshots", daemon=True)
        self._thread.start()

    def consider(self, aggregate: Acting, since: int) -> None:
        """Take a snapshot of a user, not an erased one, who has come past a multiple of `EVERY` events since then."""
        if not isinstance(aggregate, User) or aggregate.erasure:
            return
        if aggregate.version // EVERY > since // EVERY and not self._queue.full():
            self._queue.put(UserSnapshot.take(aggregate))

    def close(self) -> None:
        """Write what waits, unless that takes long: a database that hangs is not waited for."""
        with suppress(queue.Full):
            self._queue.put(None, timeout=CLOSE_S)
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while snapshot := self._queue.get():
            try:
                self._recorder.replace(self._mapper.to_stored_event(snapshot))
            except Exception as error:
                logger.warning("a snapshot was not written", extra={"fields": {"error": str(error)}})
