"""What one process does at a time, such as following the log: who holds the lead in it, until it is gone."""

import fcntl
import os
from contextlib import suppress
from typing import Protocol

import psycopg

from domain.errors import StoreUnavailable
from store.database import Database


class Leadership(Protocol):
    """Held or not; asking takes it when it is free. Losing it is noticed at the next question.

    Raises `StoreUnavailable` when nobody can be asked: that is not to say that another holds it.
    """

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
            try:
                self._descriptor = self._locked()
            except BlockingIOError:
                return False
            except OSError as error:
                raise StoreUnavailable(f"{self._path} cannot be asked for the lead: {error.strerror}.") from error
        return True

    def _locked(self) -> int:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

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
            self.release()
            raise StoreUnavailable("The database cannot be asked for the lead.") from error
        self.release()
        return False

    def release(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):  # the server notices a closed connection only a moment later
                self._connection.execute("SELECT pg_advisory_unlock_all()")
            self._connection.close()
            self._connection = None
