"""The `eventsourcing` library's own contract tests, inherited on both databases.

The library's cases are reached through their modules, so pytest collects only what is below. Its cases for dynamic
consistency boundaries do not apply: the ledger's consistency boundary is the user's stream.
"""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from eventsourcing.persistence import Tracking
from eventsourcing.tests import persistence, projection
from eventsourcing.utils import Environment
from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, inspect, select, update

from store.database import Database
from store.recorder import EventRecorder, Factory, SnapshotRecorder, ViewRecorder, library_errors, track
from tests.postgres import PostgresCluster

counters = Table("counters", MetaData(), Column("kind", Text, primary_key=True), Column("count", Integer))


class CountersView(ViewRecorder, projection.EventCountersView):
    """The view that the library's projection cases count into."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        with database.transaction() as connection:
            if not inspect(connection).has_table(counters.name):
                counters.create(connection)
                connection.execute(insert(counters), [{"kind": kind, "count": 0} for kind in ("created", "subsequent")])

    def get_created_event_counter(self) -> int:
        return self._count("created")

    def get_subsequent_event_counter(self) -> int:
        return self._count("subsequent")

    def incr_created_event_counter(self, tracking: Tracking) -> None:
        self._increment("created", tracking)

    def incr_subsequent_event_counter(self, tracking: Tracking) -> None:
        self._increment("subsequent", tracking)

    def _count(self, kind: str) -> int:
        with self.database.reading() as connection:
            return connection.execute(select(counters.c.count).where(counters.c.kind == kind)).scalar_one()

    def _increment(self, kind: str, tracking: Tracking) -> None:
        with library_errors(), self.database.transaction() as connection:
            connection.execute(update(counters).where(counters.c.kind == kind).values(count=counters.c.count + 1))
            track(connection, tracking)


class OnSQLite:
    """Gives a case empty SQLite files."""

    @pytest.fixture(autouse=True)
    def places(self, tmp_path: Path) -> Iterator[None]:
        self.urls = (f"sqlite:///{tmp_path}/{number}.db" for number in count())
        self.factories: list[Factory] = []
        self.prepare()
        yield
        for factory in self.factories:
            factory.close()

    def prepare(self) -> None:
        pass

    def factory_of_its_own(self) -> Factory:
        self.factories.append(Factory({"DATABASE_URL": next(self.urls)}))
        return self.factories[-1]


class OnPostgreSQL(OnSQLite):
    """Gives a case empty schemas of a real PostgreSQL."""

    @pytest.fixture(autouse=True)
    def places(self, postgres_cluster: PostgresCluster) -> Iterator[None]:
        with postgres_cluster.fresh_schema() as first, postgres_cluster.fresh_schema() as second:
            self.urls = iter([first.app_url, second.app_url])
            self.factories = []
            self.prepare()
            yield
            for factory in self.factories:
                factory.close()


class Snapshots:
    def create_recorder(self) -> SnapshotRecorder:
        return self.factory_of_its_own().aggregate_recorder("snapshots")


class Log:
    def create_recorder(self) -> EventRecorder:
        return self.factory_of_its_own().application_recorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class Process:
    def create_recorder(self) -> EventRecorder:
        return self.factory_of_its_own().process_recorder()


class TrackingPositions:
    def create_recorder(self) -> ViewRecorder:
        return self.factory_of_its_own().tracking_recorder()


class View:
    def construct_event_counters_view(self) -> CountersView:
        return self.factory_of_its_own().tracking_recorder(CountersView)


class FactoryClasses:
    def prepare(self) -> None:
        self.env = Environment(env={"PERSISTENCE_MODULE": "store.recorder", "DATABASE_URL": next(self.urls)})

    def expected_factory_class(self) -> type[Factory]:
        return Factory

    def expected_aggregate_recorder_class(self) -> type[SnapshotRecorder]:
        return SnapshotRecorder

    def expected_application_recorder_class(self) -> type[EventRecorder]:
        return EventRecorder

    def expected_tracking_recorder_class(self) -> type[ViewRecorder]:
        return ViewRecorder

    def tracking_recorder_subclass(self) -> type[ViewRecorder]:
        return CountersView

    def expected_process_recorder_class(self) -> type[EventRecorder]:
        return EventRecorder


class TwoDatabases:
    """The application's database, and one of its own for each projection."""

    view_class = CountersView

    def prepare(self) -> None:
        application, follower = next(self.urls), next(self.urls)
        self.env = {
            "PERSISTENCE_MODULE": "store.recorder",
            "APPLICATION_DATABASE_URL": application,
            "EVENTCOUNTERS_DATABASE_URL": follower,
            "COUNTERS_DATABASE_URL": follower,
        }


class TestSnapshotsOnSQLite(Snapshots, OnSQLite, persistence.AggregateRecorderTestCase):
    pass


class TestSnapshotsOnPostgreSQL(Snapshots, OnPostgreSQL, persistence.AggregateRecorderTestCase):
    pass


class TestLogOnSQLite(Log, OnSQLite, persistence.ApplicationRecorderTestCase):
    pass


class TestLogOnPostgreSQL(Log, OnPostgreSQL, persistence.ApplicationRecorderTestCase):
    pass


class TestProcessOnSQLite(Process, OnSQLite, persistence.ProcessRecorderTestCase):
    pass


class TestProcessOnPostgreSQL(Process, OnPostgreSQL, persistence.ProcessRecorderTestCase):
    pass


class TestNonInterleavingOnSQLite(Process, OnSQLite, persistence.NonInterleavingNotificationIDsBaseCase):
    pass


class TestNonInterleavingOnPostgreSQL(Process, OnPostgreSQL, persistence.NonInterleavingNotificationIDsBaseCase):
    pass


class TestFactoryOnSQLite(FactoryClasses, OnSQLite, persistence.InfrastructureFactoryTestCase):
    pass


class TestFactoryOnPostgreSQL(FactoryClasses, OnPostgreSQL, persistence.InfrastructureFactoryTestCase):
    pass


class TestTrackingOnSQLite(TrackingPositions, OnSQLite, persistence.TrackingRecorderTestCase):
    pass


class TestTrackingOnPostgreSQL(TrackingPositions, OnPostgreSQL, persistence.TrackingRecorderTestCase):
    pass


class TestViewOnSQLite(View, OnSQLite, projection.EventCountersViewTestCase):
    pass


class TestViewOnPostgreSQL(View, OnPostgreSQL, projection.EventCountersViewTestCase):
    pass


class TestProjectionOnSQLite(TwoDatabases, OnSQLite, projection.AggregateEventCountersProjectionTestCase):
    pass


class TestProjectionOnPostgreSQL(TwoDatabases, OnPostgreSQL, projection.AggregateEventCountersProjectionTestCase):
    pass


class TestEventSourcedProjectionOnSQLite(TwoDatabases, OnSQLite, projection.EventSourcedProjectionTestCase):
    pass


class TestEventSourcedProjectionOnPostgreSQL(TwoDatabases, OnPostgreSQL, projection.EventSourcedProjectionTestCase):
    pass
