"""What one process does at a time, such as following the log: who holds the lead in it, until it is gone."""

import fcntl
import logging
import os
from contextlib import suppress
from typing import Protocol

import psycopg

from store.database import Database

logger = logging.getLogger("ledger.follower")


class Leadership(Protocol):
    """Held or not; asking takes it when it is free. Losing it is noticed at the next question."""

    def is_held(self) -> bool: ...

    def release(self) -> None: ...


def leadership(database: Database, purpose: str = "follower") -> Leadership:
    return FileLeadership(database, purpose) if database.is_sqlite else AdvisoryLeadership(database, purpose)


class FileLeadership:
    """A lock file of its own beside a SQLite database: to lock the database's file would break SQLite's own locks."""

    def __init__(self, database: Database, purpose: str) -> None:
        self._path = database.path.with_name(f"{database.path.name}.{purpose}")
        self._descriptor: int | None = None

    def is_held(self) -> bool:
        if self._descriptor is None:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                if not isinstance(error, BlockingIOError):
                    logger.warning("the lead cannot be asked for", extra={"fields": {"error": repr(error)}})
                return False
            self._descriptor = descriptor
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class AdvisoryLeadership:
    """A session-level advisory lock on a connection of its own: PostgreSQL frees it when the holder dies."""

    LOCK = "SELECT pg_try_advisory_lock(hashtext(%s), hashtext(current_schema()))"

    def __init__(self, database: Database, purpose: str) -> None:
        self._libpq = database.libpq()
        self._name = f"session-ledger {purpose}"
        self._connection: psycopg.Connection[tuple[bool]] | None = None

    def is_held(self) -> bool:
        try:
            if self._connection is not None:
                self._connection.execute("SELECT 1")
                return True
            self._connection = psycopg.connect(**self._libpq, autocommit=True)
            row = self._connection.execute(self.LOCK, (self._name,)).fetchone()
            if row and row[0]:
                return True
        except psycopg.Error as error:
            logger.warning("the lead cannot be asked for", extra={"fields": {"error": type(error).__name__}})
        self.release()
        return False

    def release(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):  # the server notices a closed connection only a moment later
                self._connection.execute("SELECT pg_advisory_unlock_all()")
            self._connection.close()
            self._connection = None
