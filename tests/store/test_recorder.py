"""Positions: gapless, in commit order, whoever appends and however many."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import islice, pairwise
from uuid import uuid4

import pytest
from eventsourcing.persistence import IntegrityError, Tracking
from sqlalchemy import text

from store.clock import to_micros
from store.recorder import EventRecorder, Factory, last_recorded_at
from store.schema import events
from tests.clock import NOON, ManualClock
from tests.postgres import Database as Place
from tests.store.given import PATIENCE_S, child, stored, whole

WRITERS = 8
APPENDS = 25
APPEND_FROM_ANOTHER_PROCESS = """
import sys
from store.recorder import Factory
from tests.store.test_recorder import append

factory = Factory({"DATABASE_URL": sys.argv[1]})
recorder = factory.application_recorder()
print("ready", flush=True)
sys.stdin.readline()
append(recorder, int(sys.argv[2]))
factory.close()
"""


@pytest.fixture
def factory(database: Place, clock: ManualClock) -> Iterator[Factory]:
    factory = Factory({"DATABASE_URL": database.url}, clock=clock)
    yield factory
    factory.close()


@pytest.fixture
def recorder(factory: Factory) -> EventRecorder:
    return factory.application_recorder()


class Tail:
    """Reads on from where it is, all the time: what a follower would see."""

    def __init__(self, recorder: EventRecorder, until_position: int) -> None:
        self.seen: list[int] = []
        self._recorder, self._until = recorder, until_position
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while len(self.seen) < self._until:
            after = self.seen[-1] if self.seen else 0
            page = self._recorder.select_notifications(after, 50, inclusive_of_start=False)
            self.seen += [notification.id for notification in page]

    def finish(self) -> list[int]:
        self._thread.join(PATIENCE_S)
        return self.seen


def append(recorder: EventRecorder, turns: int) -> None:
    """Appends of one to four events, each to a stream of its own."""
    for size in sizes(turns):
        stream = uuid4()
        recorder.insert_events([stored(stream, version) for version in range(1, size + 1)])


def sizes(turns: int) -> list[int]:
    return [1 + turn % 4 for turn in range(turns)]


def test_a_reader_never_sees_a_hole_while_threads_append(recorder: EventRecorder):
    total = WRITERS * sum(sizes(APPENDS))
    tail = Tail(recorder, total)
    threads = [threading.Thread(target=append, args=(recorder, APPENDS), daemon=True) for _ in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert tail.finish() == list(range(1, total + 1))


def test_a_reader_never_sees_a_hole_while_two_processes_append(database: Place, recorder: EventRecorder):
    total = 2 * sum(sizes(2 * APPENDS))
    tail = Tail(recorder, total)
    with child(APPEND_FROM_ANOTHER_PROCESS, database.url, 2 * APPENDS) as other:
        assert other.stdout.readline() == "ready\n"
        other.stdin.write("go\n")
        other.stdin.flush()
        append(recorder, 2 * APPENDS)
        assert other.wait(PATIENCE_S) == 0
    assert tail.finish() == list(range(1, total + 1))


def test_an_append_waits_for_the_one_before_it_to_commit(recorder: EventRecorder):
    first, second = uuid4(), uuid4()
    with recorder.appending() as held:
        held.insert([stored(first)], 0)
        later = threading.Thread(target=recorder.insert_events, args=([stored(second)],), daemon=True)
        later.start()
        assert recorder.select_notifications(None, 10) == []
    later.join(PATIENCE_S)
    assert [(n.id, n.originator_id) for n in recorder.select_notifications(None, 10)] == [(1, first), (2, second)]


def test_a_rollback_gives_its_positions_back(recorder: EventRecorder):
    recorder.insert_events([stored(uuid4())])
    with pytest.raises(ZeroDivisionError), recorder.appending() as held:
        assert list(held.insert([stored(uuid4()), stored(uuid4())], 0)) == [2, 3]
        raise ZeroDivisionError
    assert recorder.max_notification_id() == 1
    assert recorder.insert_events([stored(uuid4())]) == [2]


def test_rows_that_cannot_be_written_take_the_events_with_them(recorder: EventRecorder):
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    before = whole(recorder.database)
    with pytest.raises(ZeroDivisionError):
        recorder.insert_events([stored(uuid4())], tracking=Tracking("upstream", 1), rows=fail)
    assert whole(recorder.database) == before
    assert recorder.max_tracking_id("upstream") is None


def test_rows_are_written_in_the_append_transaction_and_told_their_positions(recorder: EventRecorder):
    with recorder.database.transaction() as transaction:
        transaction.execute(text("CREATE TABLE told (position int)"))
    recorder.insert_events(
        [stored(uuid4()), stored(uuid4())],
        rows=lambda connection, positions: connection.execute(
            text("INSERT INTO told VALUES (:position)"), [{"position": position} for position in positions]
        ),
    )
    with recorder.database.reading() as connection:
        assert list(connection.execute(text("SELECT position FROM told ORDER BY position")).scalars()) == [1, 2]


def test_a_version_that_is_there_refuses_the_whole_append(recorder: EventRecorder):
    stream = uuid4()
    recorder.insert_events([stored(stream, 1)])
    before = whole(recorder.database)
    with pytest.raises(IntegrityError):
        recorder.insert_events([stored(uuid4(), 1), stored(stream, 2), stored(stream, 1)])
    assert whole(recorder.database) == before


def test_the_time_of_recording_is_the_clocks(recorder: EventRecorder, clock: ManualClock):
    recorder.insert_events([stored(uuid4())])
    clock.advance(1.5)
    recorder.insert_events([stored(uuid4()), stored(uuid4())])
    noon, later = to_micros(NOON), to_micros(NOON + timedelta(seconds=1.5))
    assert times(recorder) == [noon, later, later]
    assert last_recorded_at(recorder.database) == later


def test_the_time_of_recording_never_decreases_though_the_clock_goes_back(recorder: EventRecorder, clock: ManualClock):
    for step in (0, -3600, 5, -1, 7200, -7200):
        clock.advance(step)
        recorder.insert_events([stored(uuid4())])
    assert all(earlier <= later for earlier, later in pairwise(times(recorder)))
    assert last_recorded_at(recorder.database) == times(recorder)[-1] == max(times(recorder))


def times(recorder: EventRecorder) -> list[int]:
    with recorder.database.reading() as connection:
        return [row.recorded_at for row in connection.execute(events.select().order_by(events.c.position))]


def test_the_last_version_of_each_stream_that_exists_is_known(recorder: EventRecorder):
    long, short, unknown = uuid4(), uuid4(), uuid4()
    recorder.insert_events([stored(long, version) for version in (1, 2, 3)])
    recorder.insert_events([stored(short, 1)])
    with recorder.appending() as held:
        assert held.versions([unknown, short, long]) == {long: 3, short: 1}
        assert held.versions([unknown]) == {}


def test_versions_count_what_the_same_transaction_has_added(recorder: EventRecorder):
    stream = uuid4()
    with recorder.appending() as held:
        held.insert([stored(stream, 1), stored(stream, 2)], 0)
        assert held.versions([stream]) == {stream: 2}


def test_an_append_knows_whether_the_log_holds_exactly_an_event(recorder: EventRecorder):
    stream = uuid4()
    recorder.insert_events([stored(stream, 1, b"this")])
    with recorder.appending() as held:
        assert held.holds(stored(stream, 1, b"this"))
        assert not held.holds(stored(stream, 1, b"that"))
        assert not held.holds(stored(stream, 2, b"this"))


def test_a_subscription_sees_what_is_appended_while_it_begins_to_listen(
    recorder: EventRecorder, monkeypatch: pytest.MonkeyPatch
):
    told, listen = threading.Semaphore(0), recorder.wakeup.add
    recorder.wakeup.add(told.release)
    told.acquire(timeout=PATIENCE_S)

    def append_first(listener: Callable[[], None]) -> None:
        recorder.insert_events([stored(uuid4())])
        for _ in ("by this process", "by whoever watches the database"):
            told.acquire(timeout=PATIENCE_S)
        listen(listener)

    monkeypatch.setattr(recorder.wakeup, "add", append_first)
    with recorder.subscribe(gt=0) as subscription:
        give_up = threading.Timer(PATIENCE_S, subscription.stop)
        give_up.start()
        assert [notification.id for notification in islice(subscription, 1)] == [1]
        give_up.cancel()
