"""Look-ups that wait together are read together: the mirror image of group commit."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
GROUP_SIZE = 256
AT_ONCE = 2


class GroupedLookup(Generic[K]):
    """`read(keys)` answers all keys that were asked for within one turn of the event loop, at most `GROUP_SIZE`.

    While `AT_ONCE` reads are under way those who come wait for the next one, so groups grow with the load. A key's read
    starts after it was asked for, so its answer is exactly as fresh as one of its own would be. A member that is
    cancelled changes nothing for the others; a read that fails fails each of them.
    """

    def __init__(self, read: Callable[[list[K]], Awaitable[dict[K, Any]]]) -> None:
        self._read = read
        self._waiting: list[tuple[K, asyncio.Future[Any]]] = []
        self._running: set[asyncio.Task[None]] = set()

    async def get(self, key: K) -> Any | None:
        """What `read` found for the key; None when it found nothing."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._start)
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((key, future))
        return await future

    def _start(self) -> None:
        while self._waiting and len(self._running) < AT_ONCE:
            group, self._waiting = self._waiting[:GROUP_SIZE], self._waiting[GROUP_SIZE:]
            task = asyncio.get_running_loop().create_task(self._answer(group))
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._start()

    async def _answer(self, group: list[tuple[K, asyncio.Future[Any]]]) -> None:
        try:
            found = await self._read(list(dict.fromkeys(key for key, _ in group)))
        except Exception as error:
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
        else:
            for key, future in group:
                if not future.done():
                    future.set_result(found.get(key))
