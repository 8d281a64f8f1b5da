"""Tells who follows the log that it may have grown: at once within the process, soon across processes.

A wake-up says "look", never "this is new": a lost one costs time (at most `FALLBACK_S`), not an event.
"""

import logging
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing

import psycopg

from store.database import Database, connect_sqlite_reader
from store.schema import CHANNEL

POLL_S = 0.05
FALLBACK_S = 1.0

logger = logging.getLogger("ledger.wakeup")


class Wakeup:
    """Calls each listener after an append here, or of another process. Listeners must only set a flag."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listeners: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, listener: Callable[[], None]) -> None:
        with self._lock:
            self._listeners = [*self._listeners, listener]
            if self._thread is None and not self._stopping.is_set():
                watch = self._watch_sqlite if self._database.is_sqlite else self._watch_postgresql
                self._thread = threading.Thread(target=watch, name="ledger-wakeup", daemon=True)
                self._thread.start()

    def remove(self, listener: Callable[[], None]) -> None:
        with self._lock:
            self._listeners = [known for known in self._listeners if known != listener]

    def notify(self) -> None:
        """The log has grown in this process."""
        for listener in self._listeners:
            listener()

    def close(self) -> None:
        self._stopping.set()
        if self._thread:
            self._thread.join()

    def _watch_sqlite(self) -> None:
        """`PRAGMA data_version` changes when another connection has changed the file."""
        while not self._stopping.is_set():
            try:
                self._poll()
            except sqlite3.Error as error:
                self._failed(error)

    def _poll(self) -> None:
        with closing(connect_sqlite_reader(self._database.path)) as connection:
            seen = None
            while not self._stopping.wait(POLL_S):
                version = connection.execute("PRAGMA data_version").fetchone()[0]
                if version != seen:
                    seen = version
                    self.notify()

    def _watch_postgresql(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except psycopg.Error as error:
                self._failed(error)

    def _listen(self) -> None:
        with psycopg.connect(**self._database.libpq(), autocommit=True) as connection:
            connection.execute(f"LISTEN {CHANNEL}")
            while not self._stopping.is_set():
                for _ in connection.notifies(timeout=FALLBACK_S / 4, stop_after=1):
                    pass
                self.notify()

    def _failed(self, error: Exception) -> None:
        logger.warning("watching for appends failed, trying again", extra={"fields": {"error": type(error).__name__}})
        self.notify()
        self._stopping.wait(FALLBACK_S)
