"""The `eventsourcing` library's recorder interfaces on SQLAlchemy Core, for SQLite and PostgreSQL alike.

Positions are gapless and in commit order, because each is taken under the append lock: `BEGIN IMMEDIATE` on SQLite,
the row of `head` held `FOR UPDATE` on PostgreSQL. A rollback gives the numbers back.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import UUID

from eventsourcing import persistence
from eventsourcing.persistence import (
    AggregateRecorder,
    DataError,
    InfrastructureFactory,
    InfrastructureFactoryError,
    ListenNotifySubscription,
    Mapper,
    Notification,
    ProcessRecorder,
    StoredEvent,
    Subscription,
    Tracking,
    TrackingRecorder,
    Transcoder,
)
from eventsourcing.utils import Environment, EnvType, resolve_topic
from sqlalchemy import Connection, bindparam, delete, exc, insert, select, update
from sqlalchemy.dialects import postgresql

from domain.errors import StoreUnavailable
from store.bulk import insert_many
from store.clock import Clock
from store.database import Database
from store.log import LARGEST_LEAF, leaf_size
from store.schema import create_log, create_working, events, head, snapshots, tracking
from store.wakeup import Wakeup

AppendRows = Callable[[Connection, Sequence[int]], None]


class Entry(NamedTuple):
    """A fact at its place in the log. `recorded_at` in microseconds, set under the append lock."""

    position: int
    recorded_at: int
    fact: Any


_STORED = (events.c.stream, events.c.version, events.c.topic, events.c.state)
_NOTIFIED = (*_STORED, events.c.position)
_INSERT_EVENTS = insert_many(events, returning=events.c.position)
_LOCKED_HEAD = select(head.c.position, head.c.recorded_at).with_for_update()
_FORWARD = (
    update(tracking)
    .where(tracking.c.name == bindparam("follower"), tracking.c.position < bindparam("reached"))
    .values(position=bindparam("reached"))
)


class Append:
    """The append lock, held: what the log's end is, and the right to add to it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.position, self.recorded_at = connection.execute(_LOCKED_HEAD).one()

    def insert(self, stored: Sequence[StoredEvent], recorded_at: int) -> Sequence[int]:
        """Add events at the end; their positions. `recorded_at` (microseconds) never decreases along positions.

        Raises the library's `DataError` for an event whose leaf would be larger than 65,535 bytes, and
        `StoreUnavailable` when the database has not taken each of them.
        """
        if not stored:
            return ()
        for event in stored:
            if (size := leaf_size(event.topic, event.state)) > LARGEST_LEAF:
                raise DataError(f"An event of {size} bytes is not recorded: {LARGEST_LEAF} is the most (LOG-11).")
        positions = range(self.position + 1, self.position + 1 + len(stored))
        self.recorded_at = max(self.recorded_at, recorded_at)
        taken = _INSERT_EVENTS.returned(
            self.connection,
            [
                (position, self.recorded_at, e.originator_version, e.originator_id, e.topic, e.state)
                for position, e in zip(positions, stored, strict=True)
            ],
        )
        if len(taken) != len(positions):  # whoever owns the log can let a trigger or a rule swallow what he likes
            raise StoreUnavailable("The log does not take what is added to it; ./scripts/ledger verify says more.")
        self.position = positions[-1]
        return positions

    def prove_replicated(self) -> None:
        """Write `head` as it is: once that is committed, what was committed before is on the standbys too."""
        self.connection.execute(update(head).values(position=self.position))

    def versions(self, streams: Sequence[UUID]) -> dict[UUID, int]:
        """The last version of each stream that exists."""
        return dict(_last_versions(self.connection, streams))

    def holds(self, event: StoredEvent) -> bool:
        """Whether exactly this event (its bytes carry its `event_id`) is in the log."""
        at = (events.c.stream == event.originator_id) & (events.c.version == event.originator_version)
        return self.connection.execute(select(events.c.state).where(at)).scalar() == event.state


class PositionRecorder(TrackingRecorder):
    """The positions of those who follow a log, in the `tracking` table."""

    database: Database

    def insert_tracking(self, tracking: Tracking) -> None:
        with library_errors(), self.database.transaction() as connection:
            track(connection, tracking)

    def max_tracking_id(self, application_name: str) -> int | None:
        with library_errors(), self.database.reading() as connection:
            return tracked(connection, application_name)


class EventRecorder(PositionRecorder, ProcessRecorder):
    """The log, and the positions of those who follow it."""

    def __init__(self, database: Database, wakeup: Wakeup, clock: Clock) -> None:
        self.database = database
        self.wakeup = wakeup
        self._clock = clock

    @contextmanager
    def appending(self) -> Iterator[Append]:
        """Hold the append lock; what is added is committed at the end of the block, and followers are woken."""
        with self.database.transaction() as connection:
            yield Append(connection)
        self.wakeup.notify()

    def insert_events(
        self,
        stored_events: Sequence[StoredEvent],
        *,
        tracking: Tracking | None = None,
        rows: AppendRows | None = None,
        **_: Any,
    ) -> Sequence[int]:
        """Append in one transaction, with `tracking` and with what `rows(connection, positions)` writes.

        Raises the library's `IntegrityError` when an event or a position exists already; then nothing was written.
        """
        with library_errors(), self.appending() as append:
            positions = append.insert(stored_events, self._clock.micros())
            if tracking:
                track(append.connection, tracking)
            if rows:
                rows(append.connection, positions)
        return list(positions)

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        query = _of_stream(select(*_STORED), events, originator_id, gt, lte, desc, limit)
        with library_errors(), self.database.reading() as connection:
            return [StoredEvent(*row) for row in connection.execute(query)]

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        query = select(*_NOTIFIED).order_by(events.c.position).limit(limit)
        if start is not None:
            query = query.where(events.c.position >= start + (not inclusive_of_start))
        if stop is not None:
            query = query.where(events.c.position <= stop)
        if topics:
            query = query.where(events.c.topic.in_(topics))
        with library_errors(), self.database.reading() as connection:
            return [Notification(*row) for row in connection.execute(query)]

    def max_notification_id(self) -> int | None:
        with library_errors(), self.database.reading() as connection:
            return connection.execute(select(head.c.position)).scalar_one() or None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[Any]:
        return LogSubscription(self, gt=gt, topics=topics)


class LogSubscription(ListenNotifySubscription[EventRecorder]):
    """The library's subscription, woken by our wake-up instead of the library's NOTIFY."""

    def __init__(self, recorder: EventRecorder, gt: int | None = None, topics: Sequence[str] = ()) -> None:
        super().__init__(recorder, gt, topics)
        recorder.wakeup.add(self._has_been_notified.set)
        self._has_been_notified.set()  # for what was appended after the first look, before the line above

    def stop(self) -> None:
        self._recorder.wakeup.remove(self._has_been_notified.set)
        super().stop()


class SnapshotRecorder(AggregateRecorder):
    """Snapshots by stream and version, outside the log: `insert_events` returns no positions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def insert_events(self, stored_events: Sequence[StoredEvent], **_: Any) -> None:
        values = [
            {"stream": e.originator_id, "version": e.originator_version, "topic": e.topic, "state": e.state}
            for e in stored_events
        ]
        if values:
            with library_errors(), self._database.transaction() as connection:
                connection.execute(insert(snapshots), values)

    def replace(self, snapshot: StoredEvent) -> None:
        """Keep this snapshot only, unless a newer one is there."""
        with library_errors(), self._database.transaction() as connection:
            mine = snapshots.c.stream == snapshot.originator_id
            connection.execute(delete(snapshots).where(mine, snapshots.c.version <= snapshot.originator_version))
            if not connection.execute(select(snapshots.c.version).where(mine)).first():
                row = snapshot.originator_id, snapshot.originator_version, snapshot.topic, snapshot.state
                connection.execute(insert(snapshots).values(row))

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        query = _of_stream(select(snapshots), snapshots, originator_id, gt, lte, desc, limit)
        with library_errors(), self._database.reading() as connection:
            return [StoredEvent(*row) for row in connection.execute(query)]


class ViewRecorder(PositionRecorder):
    """Base of a library view: rows and tracking in one transaction, by `track` within `database.transaction()`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        with database.transaction() as connection:
            create_working(connection)


class Factory(InfrastructureFactory[ViewRecorder]):
    """Makes the recorders of one database: the one given, whose tables are there, or that of `DATABASE_URL` in `env`.

    A given `mapper` seals personal data; without one the library's own is used.
    """

    DATABASE_URL = "DATABASE_URL"

    def __init__(
        self,
        env: Environment | EnvType | None = None,
        *,
        database: Database | None = None,
        clock: Clock | None = None,
        mapper: Mapper[UUID] | None = None,
    ) -> None:
        super().__init__(env)
        self.database = database or self._named_database()
        self.wakeup = Wakeup(self.database)
        self._clock = clock or Clock()
        self._mapper = mapper

    def mapper(self, transcoder: Transcoder | None = None, mapper_class: Any = None) -> Mapper[Any]:
        return self._mapper or super().mapper(transcoder, mapper_class)

    def aggregate_recorder(self, purpose: str = "events") -> SnapshotRecorder:
        return SnapshotRecorder(self.database)

    def application_recorder(self) -> EventRecorder:
        return EventRecorder(self.database, self.wakeup, self._clock)

    def process_recorder(self) -> EventRecorder:
        return self.application_recorder()

    def tracking_recorder(self, tracking_recorder_class: type[ViewRecorder] | None = None) -> ViewRecorder:
        topic = self.env.get(self.TRACKING_RECORDER_TOPIC)
        chosen = tracking_recorder_class or (resolve_topic(topic) if topic else ViewRecorder)
        recorder: ViewRecorder = chosen(self.database)
        return recorder

    def close(self) -> None:
        self.wakeup.close()
        self.database.close()

    def _named_database(self) -> Database:
        url = self.env.get(self.DATABASE_URL)
        if url is None:
            raise InfrastructureFactoryError(f"{self.env.create_keys(self.DATABASE_URL)[0]} is not set.")
        return _prepared(url)


def _prepared(url: str) -> Database:
    database = Database(url)
    with library_errors(), database.transaction() as connection:
        create_log(connection)
        create_working(connection)
    return database


def last_recorded_at(database: Database) -> int:
    """The time of the last event, in microseconds; 0 for an empty log."""
    with library_errors(), database.reading() as connection:
        return int(connection.execute(select(head.c.recorded_at)).scalar_one())


def track(connection: Connection, mark: Tracking) -> None:
    """Move a follower's position forward; `IntegrityError` when it is there or beyond already."""
    values = {"follower": mark.application_name, "reached": mark.notification_id}
    if connection.execute(_FORWARD, values).rowcount == 0:
        connection.execute(insert(tracking).values(name=mark.application_name, position=mark.notification_id))


def tracked(connection: Connection, name: str) -> int | None:
    """A follower's position; None when it has none yet."""
    return connection.execute(select(tracking.c.position).where(tracking.c.name == name)).scalar()


@contextmanager
def library_errors() -> Iterator[None]:
    """Raise the `eventsourcing` library's error of the same name for a driver's."""
    try:
        yield
    except exc.DBAPIError as error:
        name = type(error).__name__
        raise getattr(persistence, name, persistence.DatabaseError)(str(error.orig)) from error


def _of_stream(
    query: Any, table: Any, stream: UUID | str, gt: int | None, lte: int | None, desc: bool, limit: int | None
) -> Any:
    query = query.where(table.c.stream == stream).order_by(table.c.version.desc() if desc else table.c.version)
    if gt is not None:
        query = query.where(table.c.version > gt)
    if lte is not None:
        query = query.where(table.c.version <= lte)
    return query if limit is None else query.limit(limit)


def _last_versions(connection: Connection, streams: Sequence[UUID]) -> Iterator[tuple[UUID, int]]:
    """One look-up in the (stream, version) index a stream: a stream of 100,000 events costs what one of ten costs."""
    last = "(SELECT max(version) FROM events WHERE events.stream = wanted.stream)"
    if connection.dialect.name == postgresql.dialect.name:
        sql = f"SELECT stream, {last} FROM unnest(%s::uuid[]) AS wanted (stream)"
        found = connection.exec_driver_sql(sql, (list(streams),))
    else:
        wanted = f"WITH wanted (stream) AS (VALUES {', '.join(['(?)'] * len(streams))})"
        found = connection.exec_driver_sql(f"{wanted} SELECT stream, {last} FROM wanted", tuple(streams))
    for stream, version in found:
        if version is not None:
            yield stream if isinstance(stream, UUID) else UUID(bytes=stream), version
