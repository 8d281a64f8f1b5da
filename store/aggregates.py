"""Aggregates as the log has them: the newest snapshot, and the facts after it. Many are read in two queries."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast
from uuid import UUID

from eventsourcing.persistence import Mapper, StoredEvent
from sqlalchemy import Connection, select

from domain.aggregate import Acting
from store.database import Database
from store.recorder import library_errors
from store.schema import snapshots

CACHED_SESSIONS = 100_000


class AggregateCache:
    """Aggregates as the writer left them, the least recently used first; bounded by their sessions, which take room.

    One that is taken out is put back once what has changed it is durable, and is read anew otherwise.
    """

    def __init__(self) -> None:
        self._aggregates: OrderedDict[UUID, Acting] = OrderedDict()
        self._size = 0

    def take(self, streams: Sequence[UUID]) -> dict[UUID, Acting]:
        """Those of these that are here; here they are no more."""
        taken = {stream: self._aggregates.pop(stream) for stream in streams if stream in self._aggregates}
        self._size -= sum(aggregate.size for aggregate in taken.values())
        return taken

    def put(self, aggregate: Acting) -> None:
        self._aggregates[aggregate.id] = aggregate
        self._size += aggregate.size
        while self._size > CACHED_SESSIONS or len(self._aggregates) > CACHED_SESSIONS:
            _, oldest = self._aggregates.popitem(last=False)
            self._size -= oldest.size

    def clear(self) -> None:
        self._aggregates.clear()
        self._size = 0


def read_aggregates(database: Database, mapper: Mapper[UUID], streams: Sequence[UUID]) -> dict[UUID, Acting]:
    """Those of these streams that there are, as committed."""
    if not streams:
        return {}
    found: dict[UUID, Acting] = {}
    with library_errors(), database.reading() as connection:
        for stored in _snapshots(connection, streams):
            found[cast(UUID, stored.originator_id)] = cast(Any, mapper.to_domain_event(stored)).mutate(None)
        versions = {stream: found[stream].version if stream in found else 0 for stream in streams}
        for stored in _later_events(connection, versions):
            stream = cast(UUID, stored.originator_id)
            found[stream] = cast(Any, mapper.to_domain_event(stored)).mutate(found.get(stream))
    return found


def _snapshots(connection: Connection, streams: Sequence[UUID]) -> Iterator[StoredEvent]:
    query = select(snapshots).where(snapshots.c.stream.in_(streams)).order_by(snapshots.c.version)
    return (StoredEvent(*row) for row in connection.execute(query))


def _later_events(connection: Connection, versions: Mapping[UUID, int]) -> Iterator[StoredEvent]:
    """What came after these versions, stream by stream."""
    events = (
        "SELECT events.stream, events.version, topic, state FROM {wanted} "
        "JOIN events ON events.stream = wanted.stream AND events.version > wanted.version "
        "ORDER BY events.stream, events.version"
    )
    if connection.dialect.name == "postgresql":
        sql = events.format(wanted="unnest(%s::uuid[], %s::int[]) AS wanted (stream, version)")
        rows = connection.exec_driver_sql(sql, (list(versions), list(versions.values())))
    else:
        wanted = f"WITH wanted (stream, version) AS (VALUES {', '.join(['(?, ?)'] * len(versions))}) "
        values = tuple(value for pair in versions.items() for value in pair)
        rows = connection.exec_driver_sql(wanted + events.format(wanted="wanted"), values)
    return (StoredEvent(*row) for row in rows)
