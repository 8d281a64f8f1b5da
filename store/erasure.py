"""Destroying what is left of a person: his key for good, then whatever beside the log names him.

Each step may be repeated, so a crash between two of them costs nothing: whoever answers `UserErased` begins anew.
"""

from uuid import UUID

from sqlalchemy import delete, select

from store.database import Database, store_errors
from store.failpoints import Failpoint, reach
from store.keys import KeyStore
from store.schema import idempotency, identities, snapshots

DELETED_AT_ONCE = 1_000  # far below what either database takes as parameters of a statement
_KEPT_ANSWERS = select(idempotency.c.key)


class Erasure:
    """Nothing that is sealed in the log, in a read model or in a backup of either opens once this is carried out."""

    def __init__(self, database: Database, keys: KeyStore) -> None:
        self._database = database
        self._keys = keys

    def carry_out(self, stream: UUID, *, waits: bool = True) -> None:
        """Destroy the user's key, and purge what the store keeps of him. Raises `StoreUnavailable` when it is not done.

        His `UserErased` must be durable: from it on nothing new is written that would have to be purged. Who reads for
        long keeps it from being done on SQLite: it `waits` for him some seconds, or gives up at once.
        """
        with store_errors():
            self._keys.erase(stream)
            reach(Failpoint.AFTER_TOMBSTONE)
            self._keys.database.forget_deleted(waits=waits)
            reach(Failpoint.AFTER_KEY_DESTROYED)
            self._purge(stream)
            reach(Failpoint.AFTER_PURGE)
            self._database.forget_deleted(waits=waits)
            reach(Failpoint.AFTER_PURGE_DESTROYED)

    def _purge(self, stream: UUID) -> None:
        with self._database.reading() as connection:  # `idempotency` is read through, and no lock is held meanwhile
            kept = connection.execute(_KEPT_ANSWERS.where(idempotency.c.stream == stream)).scalars().all()
        for start in range(0, len(kept), DELETED_AT_ONCE):
            portion = idempotency.c.key.in_(kept[start : start + DELETED_AT_ONCE])
            with self._database.transaction() as connection:
                connection.execute(delete(idempotency).where(portion))
        with self._database.transaction() as connection:
            for table in (identities, snapshots):
                connection.execute(delete(table).where(table.c.stream == stream))
