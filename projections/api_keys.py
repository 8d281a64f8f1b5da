"""The `api_keys` read model: its table, how facts change it, and who asks. Written in the append transaction."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any
from uuid import UUID

from eventsourcing.persistence import Mapper, Tracking
from sqlalchemy import Column, Connection, LargeBinary, MetaData, Table, Text, bindparam, select

from domain.aggregate import Context
from domain.api_keys import ApiKey as KeyHistory
from domain.api_keys import NewApiKey
from domain.events import ApiKeyCreated, ApiKeyRevoked
from store.api_keys import ApiKey, digest
from store.bulk import Bulk, Row, insert_many, update_many
from store.clock import from_micros
from store.database import Database, store_errors
from store.grouping import GroupedLookup
from store.plain import micros, octets
from store.reads import Query, Reads, padded
from store.recorder import Entry, EventRecorder, track, tracked
from store.schema import Micros

OPERATOR = "operator"
"""Who acts from a shell: the actor of keys that are made and revoked there."""


class ApiKeysProjection:
    """Folds the log into `api_keys`. A rebuild folds into a table of its own, named with a `suffix`."""

    name = "api_keys.1"

    def __init__(self, suffix: str = "") -> None:
        self.metadata = MetaData()
        self.api_keys = _table(self.metadata, suffix)
        self._add = insert_many(self.api_keys)
        self._revoke = update_many(self.api_keys.c.key_id, self.api_keys.c.revoked_at)
        self.bulks: Sequence[Bulk] = [self._add, self._revoke]

    def create_tables(self, connection: Connection) -> None:
        self.metadata.create_all(connection)

    def apply(self, connection: Connection, entries: Sequence[Entry]) -> None:
        for bulk, rows in self.changes(entries):
            bulk.run(connection, rows)

    def changes(self, entries: Sequence[Entry]) -> Iterator[tuple[Bulk, Sequence[Row]]]:
        """Add the keys that were made, then mark those that were revoked."""
        facts = [entry.fact for entry in entries]
        yield self._add, [_new(fact) for fact in facts if isinstance(fact, ApiKeyCreated)]
        yield self._revoke, [_revoked(fact) for fact in facts if isinstance(fact, ApiKeyRevoked)]


def _table(metadata: MetaData, suffix: str) -> Table:
    return Table(
        f"api_keys{suffix}",
        metadata,
        Column("key_id", Text, primary_key=True),
        Column("digest", LargeBinary, nullable=False, unique=True),
        Column("name", Text, nullable=False),
        Column("scopes", Text, nullable=False),
        Column("created_at", Micros, nullable=False),
        Column("revoked_at", Micros),
    )


def _new(fact: ApiKeyCreated) -> tuple[Any, ...]:
    """In the order of the table's columns; it has not been revoked."""
    return fact.key_id, octets(fact.digest), fact.name, " ".join(fact.scopes), micros(fact.timestamp), None


def _revoked(fact: ApiKeyRevoked) -> tuple[Any, ...]:
    return micros(fact.timestamp), fact.key_id


api_keys = ApiKeysProjection().api_keys
_k = api_keys.c
_COLUMNS = (_k.key_id, _k.name, _k.scopes, _k.created_at, _k.revoked_at)


def list_keys(database: Database) -> list[ApiKey]:
    """Every key ever made, oldest first."""
    with store_errors(), database.reading() as connection:
        return [_key(row) for row in connection.execute(select(*_COLUMNS).order_by(_k.created_at))]


class ApiKeys:
    """Every key ever made, looked up anew for each request."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._lookup = GroupedLookup(self._read)

    async def find(self, secret: str) -> ApiKey | None:
        """The key with this secret, also one that was revoked; None when there never was one."""
        return await self._lookup.get(digest(secret))

    async def _read(self, digests: list[bytes]) -> dict[bytes, ApiKey]:
        wanted = padded("k", digests)
        rows = await self._reads.rows(_by_digest_query(len(wanted)), **wanted)
        return {row[-1]: _key(row[:-1]) for row in rows}


@cache
def _by_digest_query(size: int) -> Query:
    wanted = _k.digest.in_([bindparam(f"k{i}") for i in range(size)])
    return Query(select(*_COLUMNS, _k.digest).where(wanted))


def _key(row: Sequence[object]) -> ApiKey:
    key_id, name, scopes, created_at, revoked_at = row
    return ApiKey(key_id, name, frozenset(str(scopes).split()), created_at, revoked_at)  # type: ignore[arg-type]


def adopt_keys(recorder: EventRecorder, mapper: Mapper[UUID], now: int, new_id: Callable[[], UUID]) -> None:
    """Once for a log: record the keys that an older version wrote into the table alone, as of when that was.

    The read model's position says that it is done, and moves with the facts; two processes take turns by the append
    lock. `now`: microseconds since 1970.
    """
    with store_errors(), recorder.appending() as append:
        if tracked(append.connection, ApiKeysProjection.name) is not None:
            return
        run_id = new_id()
        rows = append.connection.execute(select(*_k).order_by(_k.created_at)).all()
        facts = [fact for row in rows for fact in _history(row, run_id, new_id)]
        append.insert([mapper.to_stored_event(fact) for fact in facts], now)
        track(append.connection, Tracking(ApiKeysProjection.name, append.position))


def _history(row: Any, run_id: UUID, new_id: Callable[[], UUID]) -> Sequence[Any]:
    """What must have happened to a key for its row to be as it is."""

    def at(micros: int) -> Context:
        return Context(from_micros(micros), OPERATOR, run_id, None, new_id)

    key = KeyHistory.create(NewApiKey(row.key_id, row.name, tuple(row.scopes.split()), row.digest), at(row.created_at))
    if row.revoked_at is not None:
        key.acting(at(row.revoked_at)).revoke()
    return key.collect_events()
