"""Who listens to the audit log: so many at once, woken together, sent home at shutdown."""

import asyncio
import logging
from contextlib import suppress

from api.long_answers import Places
from domain.errors import LedgerBusy, StoreUnavailable
from projections.audit import freshness
from store.long_reads import LongReads

MOST, MOST_EACH = 32, 8
POLL_S = 0.25

_log = logging.getLogger("ledger.audit")


class AuditStreams(Places):
    """One look at the read model's position serves all who wait; no thread is held for anybody."""

    def __init__(self, reads: LongReads) -> None:
        super().__init__(MOST, MOST_EACH)
        self._reads = reads
        self._position = 0
        self._news = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    def enter(self, reader: str) -> None:
        super().enter(reader)
        if self._watching is None and not self.closed.is_set():
            self._watching = asyncio.create_task(self._watch())

    def leave(self, reader: str) -> None:
        super().leave(reader)
        if self.are_free:
            self._stop_watching()

    def close(self) -> None:
        """End every stream, those that are to come too: before a server waits for its connections to end."""
        super().close()
        self._stop_watching()
        self._tell()

    async def position_beyond(self, after: int, seconds: float) -> int:
        """The read model's position once it is beyond `after`, or what it is when the time is up or all is closed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._position <= after and not self.closed.is_set():
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
