"""Work that waits for a database, off the event loop: each kind has threads of its own, and starves no other."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from domain.errors import StoreUnavailable

PATIENCE_S = 12.0
"""Longer than a connection, a lock and a statement are waited for by those who answer at all."""

T = TypeVar("T")


class Workers:
    """So many threads; what they cannot take yet waits."""

    def __init__(self, threads: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"ledger-{name}")

    async def run(self, work: Callable[[], T]) -> T:
        """What it comes to. Raises `StoreUnavailable` when nothing has come of it after `PATIENCE_S`.

        A server that is stopped leaves a thread waiting until it goes on: only who asked is let go.
        """
        working = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            done, _ = await asyncio.wait({working}, timeout=PATIENCE_S)
        finally:
            working.cancel()
        if not done:
            raise StoreUnavailable("The store does not answer in time.")
        return working.result()

    def close(self) -> None:
        """Begin nothing more. What is under way is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
