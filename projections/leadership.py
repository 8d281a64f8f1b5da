"""Who follows the log: one process at a time. The others wait, and take over when it is gone."""

import fcntl
import os
from typing import Protocol

import psycopg

from store.database import CONNECT_TIMEOUT_S, Database


class Leadership(Protocol):
    """Held or not; asking takes it when it is free. Losing it is noticed at the next question."""

    def is_held(self) -> bool: ...

    def release(self) -> None: ...


def leadership(database: Database) -> Leadership:
    return FileLeadership(database) if database.is_sqlite else AdvisoryLeadership(database)


class FileLeadership:
    """A lock file of its own beside a SQLite database: to lock the database's file would break SQLite's own locks."""

    def __init__(self, database: Database) -> None:
        self._path = database.path.with_name(database.path.name + ".follower")
        self._descriptor: int | None = None

    def is_held(self) -> bool:
        if self._descriptor is None:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            self._descriptor = descriptor
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class AdvisoryLeadership:
    """A session-level advisory lock on a connection of its own: PostgreSQL frees it when the holder dies."""

    LOCK = "SELECT pg_try_advisory_lock(hashtext('session-ledger follower'), hashtext(current_schema()))"

    def __init__(self, database: Database) -> None:
        self._url = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._connection: psycopg.Connection[tuple[bool]] | None = None

    def is_held(self) -> bool:
        try:
            if self._connection is not None:
                self._connection.execute("SELECT 1")
                return True
            connection = psycopg.connect(self._url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S)
            row = connection.execute(self.LOCK).fetchone()
            if row and row[0]:
                self._connection = connection
                return True
            connection.close()
        except psycopg.Error:
            self.release()
        return False

    def release(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
