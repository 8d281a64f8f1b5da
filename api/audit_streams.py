"""Who listens to the audit log: so many at once, woken together, sent home at shutdown."""

import asyncio
import logging
from contextlib import suppress

from domain.errors import LedgerBusy, StoreUnavailable
from projections.audit import freshness
from store.long_reads import LongReads

MOST = 32
POLL_S = 0.25

_log = logging.getLogger("ledger.audit")


class AuditStreams:
    """One look at the read model's position serves all who wait; no thread is held for anybody."""

    def __init__(self, reads: LongReads) -> None:
        self._reads = reads
        self._listeners = 0
        self._position = 0
        self._news = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self.closed = False

    def enter(self) -> None:
        """Take a place. Raises `LedgerBusy` when there is none."""
        if self._listeners >= MOST:
            raise LedgerBusy(f"{MOST} streams are open already.")
        self._listeners += 1
        if self._watching is None and not self.closed:
            self._watching = asyncio.create_task(self._watch())

    def leave(self) -> None:
        self._listeners -= 1
        if self._listeners == 0:
            self._stop_watching()

    def close(self) -> None:
        """End every stream, those that are to come too: before a server waits for its connections to end."""
        self.closed = True
        self._stop_watching()
        self._tell()

    async def position_beyond(self, after: int, seconds: float) -> int:
        """The read model's position once it is beyond `after`, or what it is when the time is up or all is closed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._position <= after and not self.closed:
                    await self._news.wait()
        return self._position

    async def _watch(self) -> None:
        while True:
            try:
                await self._look()
            except (StoreUnavailable, LedgerBusy):
                pass  # those who listen notice by themselves
            except Exception:  # or all who listen would hear heartbeats only from then on
                _log.exception("the audit log could not be looked at")
            await asyncio.sleep(POLL_S)

    async def _look(self) -> None:
        position = (await self._reads.run(freshness)).position
        if position != self._position:
            self._position = position
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _stop_watching(self) -> None:
        if self._watching:
            self._watching.cancel()
            self._watching = None
