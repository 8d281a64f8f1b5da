"""Threads that present credentials over and over, while a test does something else."""

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from tests.api.client import Headers
from tests.proof.history import Credential, History
from tests.store.given import until

PAUSE_S = 0.001

Ask = Callable[[str, Headers], bool]
"""Whether this process lets these headers in."""


class Watch:
    """`ask` belongs to one thread: `new_ask` makes one for each."""

    def __init__(self, history: History, new_ask: Callable[[], Ask], processes: Iterable[str]) -> None:
        self._history = history
        self._new_ask = new_ask
        self._processes = tuple(processes)
        self._presented: dict[Credential, Headers] = {}
        self._changing = threading.Lock()
        self._stopping = threading.Event()
        self._faults: list[Exception] = []

    @contextmanager
    def by_threads(self, count: int) -> Iterator["Watch"]:
        threads = [threading.Thread(target=self._run) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()
        assert self._faults == []

    def add(self, session: str, ways_in: dict[str, Headers]) -> None:
        more = {Credential(session, way, p): headers for way, headers in ways_in.items() for p in self._processes}
        with self._changing:
            self._presented = {**self._presented, **more}

    def drop(self, sessions: Iterable[str]) -> None:
        gone = set(sessions)
        with self._changing:
            self._presented = {c: headers for c, headers in self._presented.items() if c.session not in gone}

    def await_each(self, times: int = 1) -> None:
        """Every credential, unless it is dropped, was presented so many times, each begun from now on."""
        now, seen = time.monotonic(), len(self._history.checks)
        left = dict.fromkeys(self._presented, times)

        def all_presented() -> bool:
            nonlocal seen
            new = self._history.checks[seen:]
            seen += len(new)
            for check in new:
                if check.started > now and check.credential in left:
                    left[check.credential] -= 1
            return bool(self._faults) or not any(left[c] > 0 for c in left if c in self._presented)

        until(all_presented, seconds=60)

    def _run(self) -> None:
        ask = self._new_ask()
        try:
            while not self._stopping.is_set():
                presented = [*self._presented.items()]
                if not presented:
                    self._stopping.wait(PAUSE_S)
                random.shuffle(presented)
                for credential, headers in presented:
                    self._history.check(credential, lambda c=credential, h=headers: ask(c.process, h))
        except Exception as error:
            self._faults.append(error)
