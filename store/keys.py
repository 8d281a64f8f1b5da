"""Keys, kept apart from the log: one data key a user, wrapped by the master key; and the pepper behind pseudonyms.

A user's key has three states: none, active, erased (a tombstone, so that a new one is never made silently).
"""

import hashlib
import hmac
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from sqlalchemy import Column, Connection, Insert, LargeBinary, MetaData, Table, Text, bindparam, insert, select
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite

from domain.errors import StoreUnavailable, UserErased
from store.database import Database, store_errors
from store.failpoints import Failpoint, reach
from store.master_key import KEY_BYTES, MasterKey, MasterKeyError, Ring, open_with
from store.master_key import create as make_master_key
from store.reads import Query, padded
from store.schema import Id, bindings, head, one_creator_at_a_time
from store.sealing import SealBroken

LOOKED_UP_AT_ONCE = 256

metadata = MetaData()

user_keys = Table(
    "user_keys",
    metadata,
    Column("stream", Id, primary_key=True),
    Column("wrapped", LargeBinary),  # NULL: erased
)

secrets = Table(
    "secrets", metadata, Column("name", Text, primary_key=True), Column("wrapped", LargeBinary, nullable=False)
)

_WRAPPING = "hashtext('session-ledger: wrapping')"
_PEPPER = select(secrets.c.wrapped).where(secrets.c.name == "pepper")
_PROOF = select(bindings.c.value).where(bindings.c.name == "pepper")
_KEYS = select(user_keys.c.stream, user_keys.c.wrapped)


class KeyErased(UserErased):
    """These users were erased: their keys are gone for good."""

    def __init__(self, streams: Sequence[UUID]) -> None:
        super().__init__(f"{len(streams)} of these users were erased.")
        self.streams = streams


class KeyStore:
    """Nothing is cached: a key is in memory for one batch or one request, so destroying it is effective at once."""

    def __init__(self, database: Database, master_key_file: Path) -> None:
        with store_errors(), database.transaction() as connection:
            one_creator_at_a_time(connection)
            metadata.create_all(connection)
            wrapped = connection.execute(_PEPPER).scalar()
        self._open(database, master_key_file, create=wrapped is None)

    @classmethod
    def existing(cls, database: Database, master_key_file: Path) -> Self:
        """The keys that are there; none is made. Raises `StoreUnavailable` or `MasterKeyError` where there are none."""
        store = cls.__new__(cls)
        store._open(database, master_key_file, create=False)
        return store

    def _open(self, database: Database, master_key_file: Path, *, create: bool) -> None:
        self.database = database
        self._withheld: frozenset[UUID] = frozenset()
        if create:
            make_master_key(master_key_file)
        self.master = MasterKey(master_key_file, self.check_ring)
        if create:
            self._make_pepper()
        self.pepper = self._read_pepper(self.master.open)

    def pseudonym(self, user_id: str) -> UUID:
        """A user's stream: a version 8 UUID (RFC 9562) made of HMAC-SHA-256(pepper, user id)."""
        # `hmac.digest` would give Python's lock away, and the writer would take it.
        digest = bytearray(hmac.new(self.pepper, user_id.encode(), hashlib.sha256).digest()[:16])
        digest[6] = digest[6] & 0x0F | 0x80
        digest[8] = digest[8] & 0x3F | 0x80
        return UUID(bytes=bytes(digest))

    def secret_for(self, purpose: str) -> bytes:
        """A key that is the same in every process with these keys, and of no use for another purpose."""
        return hmac.digest(self.pepper, b"session-ledger " + purpose.encode(), hashlib.sha256)

    def bind(self, log: Database) -> None:
        """Tie these keys to a log at its first use. Raises `MasterKeyError` when the log was written with other ones.

        Under another pepper every user would be a stranger, and one who is disabled could sign in.
        """
        with store_errors(), log.transaction() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(select(head).with_for_update())
            bound = connection.execute(_PROOF).scalar()
            if bound is None and connection.execute(select(head.c.position)).scalar_one() == 0:
                connection.execute(insert(bindings).values(name="pepper", value=self.secret_for("log")))
        self.check_bound(log)

    def check_bound(self, log: Database) -> None:
        """Raises `MasterKeyError` when the log was written with other keys, or with none yet."""
        with store_errors(), log.reading() as connection:
            bound = connection.execute(_PROOF).scalar()
        if bound is None or not hmac.compare_digest(bound, self.secret_for("log")):
            keys_url = self.database.url.render_as_string()
            raise MasterKeyError(f"The keys at {keys_url} are not those that this log was written with.")

    def ensure(self, streams: Iterable[UUID]) -> Mapping[UUID, bytes]:
        """The key of each user; one is made, and committed, for him who has none. Raises `KeyErased`."""
        wanted = list(dict.fromkeys(streams))
        try:
            return self._ensure(wanted)
        except StoreUnavailable:  # a restart of the database leaves dead connections behind
            self.database.discard_connections()
            return self._ensure(wanted)

    def _ensure(self, wanted: Sequence[UUID]) -> Mapping[UUID, bytes]:
        keys = self.find(wanted)
        if missing := [stream for stream in wanted if stream not in keys]:
            self._create(missing)
            keys |= self.find(missing)
        if erased := [stream for stream in wanted if stream not in keys]:
            raise KeyErased(erased)
        return keys

    def find(self, streams: Sequence[UUID]) -> dict[UUID, bytes]:
        """The keys that are active; a user without one is left out."""
        if not streams:
            return {}
        wanted = padded("s", streams)
        sql, _ = stream_keys_query(len(wanted)).sql(for_sqlite=self.database.is_sqlite)
        with store_errors(), self.database.reading() as connection:
            return self.unwrap(connection.exec_driver_sql(sql, wanted))

    def unwrap(self, rows: Iterable[Any]) -> dict[UUID, bytes]:
        """Open rows of `stream_keys_query`."""
        return {
            stream: self.master.open(wrapped, stream.bytes)
            for stream, wrapped in rows
            if wrapped and stream not in self._withheld
        }

    def withhold(self, erased: Iterable[UUID]) -> None:
        """Give out no key of these, also where a restored backup has it: who only reads cannot destroy it."""
        self._withheld = frozenset(erased)

    def erase(self, stream: UUID) -> None:
        """Put a tombstone in the place of the user's key, also where he never had one: none is made any more."""
        insert_into = insert_sqlite if self.database.is_sqlite else insert_postgresql
        tombstone = insert_into(user_keys).values(stream=stream, wrapped=None)
        with store_errors(), self.database.transaction() as connection:
            connection.execute(
                tombstone.on_conflict_do_update(index_elements=[user_keys.c.stream], set_={"wrapped": None})
            )

    def without_tombstone(self, streams: Iterable[UUID]) -> list[UUID]:
        """Those of these users who have no tombstone: a restored backup has lost it, or it was not put there yet."""
        left = dict.fromkeys(streams)
        for stream, wrapped in self.wrapped([*left]):
            if wrapped is None:
                left.pop(stream)
        return [*left]

    def wrapped(self, streams: Sequence[UUID]) -> Iterator[tuple[UUID, bytes | None]]:
        """The keys as they are wrapped, of those of these users who have a row; None is a tombstone."""
        for start in range(0, len(streams), LOOKED_UP_AT_ONCE):
            wanted = padded("s", streams[start : start + LOOKED_UP_AT_ONCE])
            sql, _ = stream_keys_query(len(wanted)).sql(for_sqlite=self.database.is_sqlite)
            with store_errors(), self.database.reading() as connection:
                rows = connection.exec_driver_sql(sql, wanted).all()
            yield from ((stream, wrapped) for stream, wrapped in rows)

    def _create(self, streams: Sequence[UUID]) -> None:
        with self._wrapping() as connection:
            rows = [{"stream": s, "wrapped": self.master.wrap(os.urandom(KEY_BYTES), s.bytes)} for s in streams]
            connection.execute(self._insert_if_absent(user_keys), rows)
        reach(Failpoint.AFTER_KEY_COMMIT)

    def _insert_if_absent(self, table: Table) -> Insert:
        insert_into = insert_sqlite if self.database.is_sqlite else insert_postgresql
        return insert_into(table).on_conflict_do_nothing()

    def _make_pepper(self) -> None:
        """Unless another process has made it since."""
        with self._wrapping() as connection:
            wrapped = self.master.wrap(os.urandom(KEY_BYTES), b"pepper")
            connection.execute(self._insert_if_absent(secrets).values(name="pepper", wrapped=wrapped))

    @contextmanager
    def _wrapping(self) -> Iterator[Connection]:
        """A transaction that a rotation of the master key waits for; on SQLite by its write lock."""
        with store_errors(), self.database.transaction() as connection:
            if not self.database.is_sqlite:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock_shared({_WRAPPING})")
            yield connection

    def await_wrapping(self) -> None:
        """Return once nobody who looked at the master key file before this call can still add a key."""
        with store_errors(), self.database.transaction() as connection:
            if not self.database.is_sqlite:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRAPPING})")

    def check_ring(self, ring: Ring) -> None:
        """Raises `MasterKeyError` when these keys were wrapped with none of this ring."""
        self._read_pepper(partial(open_with, ring))

    def _read_pepper(self, unwrap: Callable[[bytes, bytes], bytes]) -> bytes:
        with store_errors(), self.database.reading() as connection:
            wrapped = connection.execute(_PEPPER).scalar()
        if wrapped is None:
            raise MasterKeyError(f"{self.database.url.render_as_string()} holds no keys yet.")
        try:
            return unwrap(wrapped, b"pepper")
        except SealBroken as error:
            raise MasterKeyError(
                f"{self.master.path} is not the master key that these keys were wrapped with."
            ) from error


def tombstones(keys: Database) -> set[UUID]:
    """Whose keys are erased."""
    with store_errors(), keys.reading() as connection:
        return {*connection.execute(select(user_keys.c.stream).where(user_keys.c.wrapped.is_(None))).scalars()}


@cache
def stream_keys_query(size: int) -> Query:
    """The wrapped keys of `size` users, named `s0`, `s1`, …"""
    return Query(_KEYS.where(user_keys.c.stream.in_([bindparam(f"s{i}") for i in range(size)])))
