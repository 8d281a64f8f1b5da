"""Users as the log has them: the newest snapshot, and the facts after it. Many are read in two queries."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast
from uuid import UUID

from eventsourcing.persistence import Mapper, StoredEvent
from sqlalchemy import Connection, select

from domain.user import User
from store.database import Database
from store.recorder import library_errors
from store.schema import snapshots

CACHED_SESSIONS = 100_000


class UserCache:
    """Users as the writer left them, the least recently used first; bounded by their sessions, which take the room.

    One that is taken out is put back once what has changed him is durable, and is read anew otherwise.
    """

    def __init__(self) -> None:
        self._users: OrderedDict[UUID, User] = OrderedDict()
        self._sessions = 0

    def take(self, streams: Sequence[UUID]) -> dict[UUID, User]:
        """Those of these users who are here; here they are no more."""
        taken = {stream: self._users.pop(stream) for stream in streams if stream in self._users}
        self._sessions -= sum(len(user.sessions) for user in taken.values())
        return taken

    def put(self, user: User) -> None:
        self._users[user.id] = user
        self._sessions += len(user.sessions)
        while self._sessions > CACHED_SESSIONS or len(self._users) > CACHED_SESSIONS:
            _, oldest = self._users.popitem(last=False)
            self._sessions -= len(oldest.sessions)

    def clear(self) -> None:
        self._users.clear()
        self._sessions = 0


def read_users(database: Database, mapper: Mapper[UUID], streams: Sequence[UUID]) -> dict[UUID, User]:
    """Those of these users whom the ledger has heard of, as committed."""
    if not streams:
        return {}
    users: dict[UUID, User] = {}
    with library_errors(), database.reading() as connection:
        for stored in _snapshots(connection, streams):
            users[cast(UUID, stored.originator_id)] = cast(Any, mapper.to_domain_event(stored)).mutate(None)
        versions = {stream: users[stream].version if stream in users else 0 for stream in streams}
        for stored in _later_events(connection, versions):
            stream = cast(UUID, stored.originator_id)
            users[stream] = cast(Any, mapper.to_domain_event(stored)).mutate(users.get(stream))
    return users


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
