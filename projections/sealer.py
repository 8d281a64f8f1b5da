"""Seals the log: every 1,000 events or 60 s, and at shutdown, a signed checkpoint says how long it is and its root.

A chore of the process that leads, off the path of every request.
"""

import logging
import threading
import time
from typing import NamedTuple

from sqlalchemy import select

from projections.follower import Follower
from store.checkpoints import latest, publish
from store.clock import Clock
from store.failpoints import Failpoint, reach
from store.merkle import consistency_proof, root
from store.recorder import EventRecorder
from store.schema import head
from store.signing import Signing, SigningKey, SigningKeyError, SigningRefused
from store.tree import Tree, TreeIncomplete, discard, grow

EVENTS = 1_000
INTERVAL_S = 60.0
PACE_S = 0.1
SHUTDOWN_EVENTS = 20_000  # more than that, and shutting down would wait for it: the next process seals them

logger = logging.getLogger("ledger.sealer")


class Sealed(NamedTuple):
    """How far the log is sealed, and why it is no further."""

    size: int
    unsealed_events: int
    refused: str | None


class Sealer:
    """A thread that seals while its process leads. What it may not sign it tells, loudly, and signs nothing."""

    def __init__(self, recorder: EventRecorder, key: SigningKey, follower: Follower, clock: Clock) -> None:
        self._recorder = recorder
        self._database = recorder.database
        self._key = key
        self._follower = follower
        self._clock = clock
        self._refused: str | None = None
        self._failed = False
        self._rebuilt = False
        self._stopping = threading.Event()
        self._awake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger-sealer", daemon=True)

    def start(self) -> None:
        self._recorder.wakeup.add(self._awake.set)
        self._thread.start()

    def close(self) -> None:
        """Seal what there is, once, if this was started: any process may, and signs nothing twice differently."""
        self._stopping.set()
        self._awake.set()
        self._recorder.wakeup.remove(self._awake.set)
        if self._thread.is_alive():
            self._thread.join()
            if self._unsealed() <= SHUTDOWN_EVENTS:
                self._try()

    def progress(self) -> Sealed:
        with self._database.reading() as connection:
            last = latest(connection)
            end = connection.execute(select(head.c.position)).scalar_one()
        size = last.size if last else 0
        return Sealed(size, end - size, self._refused)

    def seal(self) -> None:
        """Sign and publish how long the log is by now, unless that is published already.

        Raises `SigningRefused` or `SigningKeyError`; then nothing was signed.
        """
        with self._key.signing() as signing:
            with self._database.reading() as connection:
                published = latest(connection)
                end = connection.execute(select(head.c.position)).scalar_one()
            if published:
                signing.heed(published.note)
            if end != (published.size if published else 0) or end < signing.last.size:
                self._seal(signing, end)

    def _seal(self, signing: Signing, end: int) -> None:
        if signing.last.size <= end:
            grow(self._database, end, self._give_way)
        try:
            note = self._sign(signing, end)
        except (SigningRefused, TreeIncomplete):
            if signing.last.size > end or self._rebuilt:
                raise
            self._rebuilt = True
            logger.warning("the tree does not fit what was signed: it is made anew from the log")
            discard(self._database)
            grow(self._database, end, self._give_way)
            note = self._sign(signing, end)
        reach(Failpoint.AFTER_SIGNING)
        with self._database.transaction() as connection:
            publish(connection, signing.last, note, self._clock.micros())

    def _sign(self, signing: Signing, end: int) -> str:
        last = signing.last.size
        with self._database.reading() as connection:
            tree = Tree(connection)
            reached = root(tree.subtree, end) if last <= end else b""
            proof = consistency_proof(tree.subtree, last, end) if 0 < last <= end else []
        return signing.sign(end, reached, proof)

    def _give_way(self) -> None:
        """After a page of a long way, let requests have Python's lock for a while. A shutdown does not wait for it."""
        if self._stopping.wait(PACE_S) and self._unsealed() > SHUTDOWN_EVENTS:
            raise TimeoutError("The rest is left to the next process.")

    # -- the thread

    def _run(self) -> None:
        looked_at = time.monotonic()
        while not self._stopping.is_set():
            self._awake.wait(max(looked_at + INTERVAL_S - time.monotonic(), PACE_S))
            self._awake.clear()
            self._stopping.wait(PACE_S)
            is_due = time.monotonic() - looked_at >= INTERVAL_S
            if not is_due and (self._failed or not self._follower.is_leading or self._unsealed() < EVENTS):
                continue
            if self._follower.is_leading and not self._stopping.is_set():
                self._try()
            looked_at = time.monotonic()

    def _unsealed(self) -> int:
        try:
            return self.progress().unsealed_events
        except Exception:  # a store that is down is told of when there is something to seal
            return 0

    def _try(self) -> None:
        try:
            self.seal()
        except (SigningRefused, SigningKeyError) as error:
            if self._refused != str(error):
                logger.error("no checkpoint is signed", extra={"fields": {"why": str(error)}})
            self._refused, self._failed = str(error), True
        except Exception as error:
            logger.warning("sealing failed, trying again later", extra={"fields": {"error": repr(error)}})
            self._failed = True
        else:
            self._refused, self._failed = None, False
