"""One transaction a batch, one answer a command: whatever fails, what was acknowledged is in the log, and once."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, event

import store.writer
from api.ids import new_uuid7
from api.service import Service, Stores
from domain.aggregate import Context
from domain.errors import LedgerBusy, StoreUnavailable
from domain.errors import UserDisabled as UserIsDisabled
from domain.events import ClientDetails, SessionCreated
from domain.session import Limits
from domain.user import User
from store.recorder import Entry
from tests.clock import ManualClock
from tests.conftest import OpenService
from tests.postgres import PostgresCluster
from tests.store.connection_cut import BreakingProxy, Cut
from tests.store.given import (
    Caller,
    another_writer,
    assert_consistent,
    at_once,
    facts,
    facts_of,
    one_batch,
    refusal,
    result,
    topics,
    until,
    user,
    whole,
)

SQLITE, POSTGRESQL = (pytest.mark.parametrize("database", [kind], indirect=True) for kind in ("sqlite", "postgresql"))


class Mistake(Exception):
    """Something that nobody foresaw."""


def half_a_decision(user: User | None, context: Context) -> tuple[User, None]:
    """Emits a fact, and then finds that it should not have."""
    assert user is not None
    user.disable()
    raise Mistake


@contextmanager
def counted_commits(service: Service) -> Iterator[list[int]]:
    commits: list[int] = []

    def count(connection: Connection) -> None:
        commits.append(1)

    engine = service.database._writer
    event.listen(engine, "commit", count)
    yield commits


# -- group commit


def test_commands_that_wait_together_are_committed_together(service: Service, caller: Caller):
    with counted_commits(service) as commits, one_batch(service):
        futures = [caller.creates(f"user {n}") for n in range(20)]
    for future in futures:
        result(future)
    assert sum(commits) == 3  # the test's own, the one before the batch, the batch
    assert len(facts(service)) == 1 + 2 * 20
    assert_consistent(service)


def test_each_command_of_a_batch_gets_its_own_answer(service: Service, caller: Caller):
    session = result(caller.creates("alice"))
    with one_batch(service):
        wanted = [uuid4() for _ in range(5)]
        created = [caller.creates("alice", session_id=session_id) for session_id in wanted]
        revoked = [caller.revokes(session), caller.revokes(session), caller.revokes(session, "nobody")]
        disabled = [caller.disables("bob"), caller.disables("bob")]
    assert [result(future).session_id for future in created] == wanted
    assert [result(future) for future in revoked] == [True, False, False]
    assert [result(future) for future in disabled] == [True, False]


def test_an_answer_names_a_position_that_is_durable(service: Service, caller: Caller):
    with one_batch(service):
        futures = [caller.creates("alice"), caller.creates("bob")]
    positions = {future.result().position for future in futures}
    assert positions == {service.recorder.max_notification_id()}


def test_commands_on_one_user_are_decided_in_the_order_in_which_they_came(service: Service, caller: Caller):
    with one_batch(service):
        futures = [caller.creates("alice"), caller.disables("alice"), caller.creates("alice")]
    assert result(futures[0])
    assert result(futures[1]) is True
    assert isinstance(refusal(futures[2]), UserIsDisabled)
    assert topics(service) == ["UserEnrolled", "SessionCreated", "UserDisabled"]


def test_a_command_that_changes_nothing_records_nothing(service: Service, caller: Caller):
    session = result(caller.creates("alice"))
    before = whole(service.database)
    assert result(caller.touches(session)) is True
    assert result(caller.revokes(session, "nobody")) is False
    assert whole(service.database) == before


# -- one that fails, fails alone


def test_a_decision_that_raises_fails_alone_and_leaves_no_half_events(service: Service, caller: Caller):
    result(caller.creates("alice"))
    with counted_commits(service) as commits, one_batch(service):
        before = caller.creates("alice")
        failing = caller.decides(half_a_decision)
        after = caller.creates("alice")
        others = [caller.creates("bob"), caller.decides(lambda user, context: 1 // 0, "carol")]
    assert isinstance(refusal(failing), Mistake)
    assert isinstance(refusal(others[1]), ZeroDivisionError)
    assert result(before)
    assert result(after)
    assert result(others[0])
    assert sum(commits) == 3  # the batch went through as one
    assert topics(service) == ["UserEnrolled", "SessionCreated", "SessionCreated", "SessionCreated"]
    assert topics(service, "carol") == []
    assert_consistent(service)


def test_what_a_failed_decision_emitted_does_not_go_out_with_the_next_command(service: Service, caller: Caller):
    result(caller.creates("alice"))
    assert isinstance(refusal(caller.decides(half_a_decision)), Mistake)
    result(caller.creates("alice"))
    assert topics(service) == ["UserEnrolled", "SessionCreated", "SessionCreated"]


def test_a_poisoned_command_in_a_batch_fails_alone(service: Service, caller: Caller):
    taken = result(caller.creates("alice"))
    with one_batch(service):
        good = [caller.creates("bob"), caller.creates("alice")]
        poisoned = caller.creates("carol", session_id=taken.session_id)
        good += [caller.creates("dave"), caller.disables("erin")]
    assert refusal(poisoned) is not None
    for future in good:
        result(future)
    assert topics(service, "carol") == []
    assert_consistent(service)


def test_a_command_that_was_cancelled_before_it_ran_is_not_recorded(service: Service, caller: Caller):
    with one_batch(service):
        futures = [caller.creates(user_id) for user_id in ("alice", "bob", "carol")]
        assert futures[1].cancel()
    assert result(futures[0])
    assert result(futures[2])
    assert topics(service, "bob") == []


def test_an_inline_projection_that_fails_refuses_the_write(service: Service, caller: Caller):
    class Failing:
        name = "failing"

        def apply(self, connection: Connection, entries: Sequence[Entry]) -> None:
            raise Mistake

    before = whole(service.database)
    another_writer(service, Failing())
    assert isinstance(refusal(caller.creates("alice")), Mistake)
    assert isinstance(refusal(caller.disables("bob")), Mistake)
    assert whole(service.database) == before


def test_an_inline_projection_that_came_later_is_brought_up_before_it_goes_on(service: Service, caller: Caller):
    class Collecting:
        name = "collecting"

        def __init__(self) -> None:
            self.positions: list[int] = []

        def apply(self, connection: Connection, entries: Sequence[Entry]) -> None:
            self.positions += [entry.position for entry in entries]

    result(caller.creates("alice"))
    collecting = Collecting()
    another_writer(service, collecting)
    result(caller.creates("bob"))
    result(caller.creates("carol"))
    assert collecting.positions == list(range(1, 7))


# -- two services on one database


@pytest.fixture
def other(service: Service, open_service: OpenService) -> Caller:
    """A caller of a second service on the same database."""
    return Caller(open_service())


def test_a_user_whom_another_moved_is_decided_again_on_newer_facts(service: Service, caller: Caller, other: Caller):
    result(caller.creates("alice"))
    disabling = facts_of(other.service, "alice", User.disable)
    with other.service.recorder.appending() as held:
        overtaken = [caller.creates("alice"), caller.creates("bob")]
        until(lambda: all(future.running() for future in overtaken[:1]))
        held.insert(disabling, service.clock.micros())
    assert isinstance(refusal(overtaken[0]), UserIsDisabled)
    assert result(overtaken[1])
    assert topics(service) == ["UserEnrolled", "SessionCreated", "UserDisabled"]
    assert_consistent(service)


def test_a_no_op_does_not_rest_on_what_another_has_changed(service: Service, caller: Caller, other: Caller):
    session = result(caller.creates("alice"))
    assert result(other.revokes(session)) is True
    assert result(caller.touches(session)) is False


def test_nothing_cached_is_trusted_once_another_has_written(service: Service, caller: Caller, other: Caller):
    session = result(caller.creates("alice"))
    result(other.disables("alice"))
    result(caller.creates("bob"))  # by this the writer learns that the log has moved
    assert result(caller.touches(session)) is False
    assert result(caller.disables("alice")) is False
    assert isinstance(refusal(caller.creates("alice")), UserIsDisabled)


def test_never_a_live_session_of_a_disabled_user_whoever_wins(service: Service, caller: Caller, other: Caller):
    for race in range(50):
        user_id = f"user {race}"
        result(caller.creates(user_id))
        futures = at_once(
            lambda user_id=user_id: caller.creates(user_id), lambda user_id=user_id: other.disables(user_id)
        )
        assert isinstance(refusal(futures[0]), UserIsDisabled | None)
        assert result(futures[1]) is True
        disabled = user(service, user_id).disabled
        created = [fact.originator_version for fact in sessions_of(service, user_id)]
        assert len(created) == (1 if refusal(futures[0]) else 2)
        assert all(version < disabled.version for version in created)
    assert_consistent(service)


def sessions_of(service: Service, user_id: str) -> list[SessionCreated]:
    stored = service.recorder.select_events(service.keys.pseudonym(user_id))
    return [fact for fact in map(service.mapper.to_domain_event, stored) if isinstance(fact, SessionCreated)]


def test_two_services_keep_one_cap(open_service: OpenService):
    callers = [Caller(open_service(Limits(max_sessions=3))) for _ in range(2)]
    futures = [future for _ in range(10) for future in at_once(*(caller.creates for caller in callers))]
    for future in futures:
        result(future)
    service = callers[0].service
    assert len(sessions_of(service, "alice")) == 20
    assert len(user(service).sessions) == 3
    assert_consistent(service)


def test_two_services_that_enrol_one_user_enrol_him_once(service: Service, caller: Caller, other: Caller):
    for turn in range(10):
        user_id = f"user {turn}"
        for future in at_once(
            lambda user_id=user_id: caller.creates(user_id), lambda user_id=user_id: other.creates(user_id)
        ):
            result(future)
        assert topics(service, user_id) == ["UserEnrolled", "SessionCreated", "SessionCreated"]
    assert_consistent(service)


# -- too much, and the end


def test_a_full_queue_answers_busy_and_records_the_rest(open_service: OpenService, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store.writer, "QUEUE_SIZE", 4)
    service = open_service()
    caller = Caller(service)
    with one_batch(service):
        futures = [caller.creates(f"user {n}") for n in range(6)]
    assert [isinstance(refusal(future), LedgerBusy) for future in futures] == [False] * 4 + [True] * 2
    assert result(caller.creates("user 5"))
    assert_consistent(service)


def test_closing_answers_everything_that_was_submitted(service: Service, caller: Caller):
    futures = [caller.creates(f"user {n}") for n in range(600)]
    service.close()
    assert all(future.done() for future in futures)
    assert not [future for future in futures if future.exception()]


def test_a_closed_writer_takes_nothing_more(service: Service, caller: Caller):
    service.close()
    future = caller.creates("alice")
    assert isinstance(refusal(future), LedgerBusy)


# -- the store is down


@POSTGRESQL
def test_a_server_that_is_down_refuses_and_service_goes_on_when_it_is_back(
    service: Service, caller: Caller, postgres_cluster: PostgresCluster
):
    session = result(caller.creates("alice"))
    before = whole(service.database)

    postgres_cluster.stop()
    for future in (caller.creates("alice"), caller.creates("bob"), caller.touches(session), caller.disables("alice")):
        assert isinstance(refusal(future), StoreUnavailable)

    postgres_cluster.start()
    until(lambda: refusal(caller.creates("alice")) is None)
    assert topics(service) == ["UserEnrolled", "SessionCreated", "SessionCreated"]
    assert whole(service.database)[0][:2] == before[0]
    assert_consistent(service)


@POSTGRESQL
def test_a_restart_between_two_commands_refuses_neither(
    service: Service, caller: Caller, postgres_cluster: PostgresCluster
):
    session = result(caller.creates("alice"))
    postgres_cluster.stop()
    postgres_cluster.start()
    assert result(caller.revokes(session)) is True
    assert topics(service) == ["UserEnrolled", "SessionCreated", "SessionRevoked"]


@POSTGRESQL
def test_a_crash_of_the_server_loses_nothing_that_was_acknowledged(
    service: Service, caller: Caller, postgres_cluster: PostgresCluster
):
    futures = [caller.creates(f"user {n}") for n in range(400)]
    result(futures[0])
    postgres_cluster.stop(mode="immediate")
    outcomes = [refusal(future) for future in futures]
    postgres_cluster.start()
    for n, outcome in enumerate(outcomes):
        assert isinstance(outcome, StoreUnavailable | None)
        if outcome is None:
            assert topics(service, f"user {n}") == ["UserEnrolled", "SessionCreated"]
    until(lambda: refusal(caller.creates("bob")) is None)
    assert_consistent(service)


@SQLITE
def test_a_full_disk_refuses_and_service_goes_on_when_there_is_room(service: Service, caller: Caller):
    result(caller.creates("alice"))
    before = whole(service.database)

    with full_disk(service):
        futures = [caller.creates("alice", client=ClientDetails(None, "x" * 40_000)), caller.creates("bob")]
        assert isinstance(refusal(futures[0]), StoreUnavailable)
        assert isinstance(refusal(futures[1]), StoreUnavailable | None)
        large = [row for row in whole(service.database)[0] if len(row.state) > 40_000]
        assert large == []

    result(caller.creates("alice", client=ClientDetails(None, "x" * 40_000)))
    assert topics(service) == ["UserEnrolled", "SessionCreated", "SessionCreated"]
    assert whole(service.database)[0][:2] == before[0]
    assert_consistent(service)


@contextmanager
def full_disk(service: Service) -> Iterator[None]:
    """SQLite says the same of a database that may have no more pages."""
    pages = 1

    def limit(connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    event.listen(service.database._writer, "begin", limit)
    yield
    pages = 2**30


# -- an unanswered COMMIT


@pytest.fixture
def proxy(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BreakingProxy]:
    proxy = BreakingProxy(stores.url, tmp_path_factory.mktemp("s"))
    yield proxy
    proxy.close()


@pytest.fixture
def far_service(stores: Stores, proxy: BreakingProxy, clock: ManualClock) -> Iterator[Service]:
    """A service whose way to its log may break."""
    far = Stores(proxy.url, stores.keys_url, stores.master_key_file, stores.owner_url)
    service = Service(far, Limits(), new_uuid7, clock)
    yield service
    service.close()


@pytest.mark.parametrize("when", ["before", "after"])
@POSTGRESQL
def test_a_commit_whose_answer_was_lost_is_acknowledged_once(far_service: Service, proxy: BreakingProxy, when: Cut):
    caller = Caller(far_service)
    result(caller.creates("alice"))
    with one_batch(far_service):
        futures = [caller.creates("alice"), caller.creates("bob"), caller.disables("carol")]
        cut_the_commit_of_the_batch(far_service, proxy, when)
    for future in futures:
        result(future)
    assert proxy.cuts == 1
    assert topics(far_service) == ["UserEnrolled", "SessionCreated", "SessionCreated"]
    assert topics(far_service, "bob") == ["UserEnrolled", "SessionCreated"]
    assert topics(far_service, "carol") == ["UserEnrolled", "UserDisabled"]
    result(caller.creates("alice"))
    assert_consistent(far_service)


def cut_the_commit_of_the_batch(service: Service, proxy: BreakingProxy, when: Cut) -> None:
    """The test's own comes first, then that of the command which occupies the writer, then that of the batch."""
    commits = 0

    def count(connection: Connection) -> None:
        nonlocal commits
        commits += 1
        if commits == 3:
            proxy.cut(when)

    event.listen(service.database._writer, "commit", count)


@SQLITE
def test_a_commit_of_sqlite_that_failed_after_it_was_done_is_acknowledged_once(
    service: Service, caller: Caller, monkeypatch: pytest.MonkeyPatch
):
    result(caller.creates("alice"))
    fail_once_after_commit(service, monkeypatch)
    result(caller.creates("alice"))
    result(caller.creates("bob"))
    assert topics(service) == ["UserEnrolled", "SessionCreated", "SessionCreated"]
    assert_consistent(service)


def fail_once_after_commit(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    dialect = service.database._writer.dialect
    commit = dialect.do_commit
    failures = iter([True])

    def commit_and_fail(connection: Any) -> None:
        commit(connection)
        if next(failures, False):
            raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(dialect, "do_commit", commit_and_fail)


@SQLITE
def test_what_others_wrote_while_a_commit_was_in_doubt_is_not_missed(
    service: Service, caller: Caller, other: Caller, monkeypatch: pytest.MonkeyPatch
):
    session = result(caller.creates("alice"))
    discard = service.database.discard_connections

    def disable_and_discard() -> None:
        monkeypatch.setattr(service.database, "discard_connections", discard)
        result(other.disables("alice"))
        discard()

    monkeypatch.setattr(service.database, "discard_connections", disable_and_discard)
    fail_once_after_commit(service, monkeypatch)
    result(caller.creates("bob"))
    assert result(caller.touches(session)) is False


def test_a_pool_without_a_free_connection_refuses_a_batch_at_once(
    open_service: OpenService, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("store.database.CONNECT_TIMEOUT_S", 0.2)
    service = open_service()
    tries = []
    monkeypatch.setattr(
        service.writer,
        "_commit",
        lambda batch, commit=service.writer._commit: tries.append(len(batch)) or commit(batch),
    )
    with ExitStack() as everybody:
        with suppress(StoreUnavailable):
            while True:
                everybody.enter_context(service.database.reading())
        answers = [Caller(service).creates(f"user {i}") for i in range(8)]
        assert {type(refusal(answer)) for answer in answers} == {StoreUnavailable}
    assert sum(tries) == len(answers)
    result(Caller(service).creates())
