"""Answers that take long: so many at once, each as long as its credential is good and somebody takes what is sent."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from functools import partial

from fastapi.responses import StreamingResponse
from starlette.requests import Request as HttpRequest
from starlette.types import Message, Receive, Scope, Send

from api.credentials import Authorized, still_holds
from domain.errors import LedgerBusy

CHECK_S = 5.0
STALLED_S = 60.0
"""What is sent at once is some kilobytes, or a page of an export: less than a megabyte."""


class Places:
    """How many such answers are under way in this process, and for whom: no reader can take all of them."""

    def __init__(self, most: int, most_each: int) -> None:
        self._most = most
        self._most_each = most_each
        self._taken: Counter[str] = Counter()
        self.closed = asyncio.Event()

    def enter(self, reader: str) -> None:
        """Take a place. Raises `LedgerBusy` when there is none."""
        if self._taken.total() >= self._most:
            raise LedgerBusy(f"{self._most} such answers are under way already.")
        if self._taken[reader] >= self._most_each:
            raise LedgerBusy(f"{self._most_each} such answers are under way for {reader} already.")
        self._taken[reader] += 1

    def leave(self, reader: str) -> None:
        self._taken -= Counter([reader])

    @property
    def are_free(self) -> bool:
        return not self._taken

    def close(self) -> None:
        """End every answer that waits for its reader."""
        self.closed.set()


class BrokenOff(Exception):
    """The answer ends here and gets no end, so that nobody takes it for whole."""


class LongAnswer(StreamingResponse):
    """Keeps the place that was taken for it until it has ended, however that comes about."""

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        http: HttpRequest,
        by: Authorized,
        places: Places,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(chunks, headers=headers)
        self._http = http
        self._by = by
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, partial(self._send, send))
        except BrokenOff:
            pass
        finally:
            self._places.leave(self._by.name)

    async def _send(self, send: Send, message: Message) -> None:
        """Waits for who reads slowly, but neither beyond his credential nor for ever. Raises `BrokenOff`."""
        sending = asyncio.ensure_future(send(message))
        closed = asyncio.ensure_future(self._places.closed.wait())
        try:
            async with asyncio.timeout(STALLED_S):
                while not sending.done():
                    await asyncio.wait([sending, closed], timeout=CHECK_S, return_when=asyncio.FIRST_COMPLETED)
                    if not sending.done() and (closed.done() or not await still_holds(self._http, self._by)):
                        raise BrokenOff
            await sending
        except TimeoutError:
            raise BrokenOff from None
        finally:
            sending.cancel()
            closed.cancel()
