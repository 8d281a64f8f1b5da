"""Who follows the log hears of an append: at once within a process, soon across processes."""

import statistics
import threading
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest

from store.recorder import EventRecorder, Factory
from tests.postgres import Database as Place
from tests.postgres import PostgresCluster
from tests.store.given import PATIENCE_S, child, stored

APPENDS = 200
P99_S = 0.2
APPEND_AND_SAY_WHEN = """
import sys, time
from uuid import uuid4
from store.recorder import Factory
from tests.store.given import stored

factory = Factory({"DATABASE_URL": sys.argv[1]})
recorder = factory.application_recorder()
for _ in range(int(sys.argv[2])):
    [position] = recorder.insert_events([stored(uuid4())])
    print(position, time.monotonic_ns(), flush=True)
    time.sleep(0.005)  # the pace of the load; nothing waits for it
factory.close()
"""


class Listener:
    """Looks at the log when it is woken, and notes when it first saw each position."""

    def __init__(self, recorder: EventRecorder) -> None:
        self.seen_at: dict[int, int] = {}
        self._recorder = recorder
        self._woken = threading.Event()
        recorder.wakeup.add(self._woken.set)

    def follow(self, until_position: int) -> None:
        while len(self.seen_at) < until_position and self._woken.wait(PATIENCE_S):
            self._woken.clear()
            head = self._recorder.max_notification_id() or 0
            now = time.monotonic_ns()
            for position in range(len(self.seen_at) + 1, head + 1):
                self.seen_at[position] = now
        assert len(self.seen_at) >= until_position

    def hears_of(self, position: int) -> None:
        self.follow(position)
        self._recorder.wakeup.remove(self._woken.set)


@pytest.fixture
def factory(database: Place) -> Iterator[Factory]:
    factory = Factory({"DATABASE_URL": database.url})
    yield factory
    factory.close()


@pytest.fixture
def other(database: Place, factory: Factory) -> Iterator[Factory]:
    """On the same database, with a wake-up of its own, as in another process."""
    other = Factory({"DATABASE_URL": database.url})
    yield other
    other.close()


def test_appends_of_another_process_are_heard_within_200_ms(database: Place, factory: Factory):
    recorder = factory.application_recorder()
    p99 = [delay_of_the_slowest_but_one_percent(database, recorder)]
    if p99[0] > P99_S:  # a machine may stumble once
        p99 += [delay_of_the_slowest_but_one_percent(database, recorder) for _ in range(2)]
    assert statistics.median(p99) <= P99_S


def delay_of_the_slowest_but_one_percent(database: Place, recorder: EventRecorder) -> float:
    """Seconds from commit to wake-up, over all appends of a child process."""
    before = recorder.max_notification_id() or 0
    listener = Listener(recorder)
    listener.seen_at = dict.fromkeys(range(1, before + 1), 0)
    with child(APPEND_AND_SAY_WHEN, database.url, APPENDS) as process:
        listener.hears_of(before + APPENDS)
        committed_at = [tuple(map(int, line.split())) for line in process.stdout]
    assert len(committed_at) == APPENDS
    delays = [listener.seen_at[position] - committed for position, committed in committed_at]
    return statistics.quantiles(delays, n=100)[98] / 1e9


def test_an_append_of_the_same_process_is_heard_at_once(factory: Factory):
    recorder = factory.application_recorder()
    told: list[str] = []
    recorder.wakeup.add(lambda: told.append(threading.current_thread().name))
    recorder.insert_events([stored(uuid4())])
    assert threading.current_thread().name in told


def test_an_append_of_another_is_heard(factory: Factory, other: Factory):
    listener = Listener(factory.application_recorder())
    for position in (1, 2, 3):
        other.application_recorder().insert_events([stored(uuid4())])
        listener.follow(position)


def test_whoever_was_removed_is_not_told_any_more(factory: Factory):
    recorder = factory.application_recorder()
    told: list[str] = []
    first, second = lambda: told.append("first"), lambda: told.append("second")
    recorder.wakeup.add(first)
    recorder.wakeup.add(second)
    recorder.wakeup.remove(first)
    told.clear()
    recorder.insert_events([stored(uuid4())])
    assert "second" in told
    assert "first" not in told


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_listening_goes_on_after_its_connection_was_lost(
    postgres_cluster: PostgresCluster, factory: Factory, other: Factory
):
    listener = Listener(factory.application_recorder())
    other.application_recorder().insert_events([stored(uuid4())])
    listener.follow(1)
    postgres_cluster.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
    other.application_recorder().insert_events([stored(uuid4())])
    listener.follow(2)


def test_closing_ends_the_watch(factory: Factory):
    factory.wakeup.add(lambda: None)
    assert any(thread.name == "ledger-wakeup" for thread in threading.enumerate())
    factory.wakeup.close()
    assert not any(thread.name == "ledger-wakeup" for thread in threading.enumerate())
