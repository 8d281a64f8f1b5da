import random
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from eventsourcing.persistence import StoredEvent
from sqlalchemy import Connection, delete, select, text, update

import projections.rebuild
from domain.aggregate import Context
from domain.errors import UserDisabled, UserErased
from domain.events import ClientDetails, EndReason, SessionCreated, SessionRevoked, SessionTouched
from domain.session import Limits, Timeouts
from domain.user import SignIn, User
from projections import shadow
from projections.rebuild import PROJECTIONS, Comparison, rebuild
from projections.sessions import SessionsProjection
from projections.shadow import SUFFIX, RebuildStopped
from projections.staging import Staging
from projections.switching import REPLACED
from store.plain import plain_entries
from store.schema import tracking
from tests.clock import ManualClock
from tests.conftest import OpenService
from tests.postgres import Database
from tests.projections.conftest import Drive
from tests.projections.driver import Driver, insert_as_owner, request, set_tracked, token_hash, until

SMALL = Limits(normal=Timeouts(1800, 7200), remembered=Timeouts(20_000, 6000), touch_interval=60, max_sessions=3)
USERS = ("alice", "bob", "carol", "dave", "erin")


def rebuilt(driver: Driver, *, dry_run: bool = False) -> Comparison:
    return rebuild(driver.service.database, SessionsProjection, dry_run=dry_run)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "PAGE", 7)
    monkeypatch.setattr(projections.rebuild, "NEAR", 5)


# -- random histories


class Story:
    """What several users do, at random but the same for a seed, over several lives of the service."""

    STEPS = 240

    def __init__(self, seed: int, open_service: OpenService, drive: Drive, clock: ManualClock) -> None:
        self.dice = random.Random(seed)
        self.sessions: list[tuple[str, UUID]] = []
        self._clock = clock
        self._open: Callable[[], Driver] = lambda: drive(open_service(SMALL))
        self.driver = self._open()
        self._waiting: list[Future[Any]] = []

    def play(self) -> Driver:
        actions = {self.sign_in: 30, self.touch: 25, self.revoke: 12, self.revoke_all: 2, self.disable: 4}
        actions |= {self.enable: 6, self.time_passes: 12, self.sweep: 3, self.follow: 2, self.restart: 2}
        actions |= {self.erase: 2}
        for action in self.dice.choices(list(actions), weights=list(actions.values()), k=self.STEPS):
            action()
            if self.dice.random() < 0.4:
                self.settle()
        self.settle()
        return self.driver

    def settle(self) -> None:
        """Commands that were not waited for went into batches together."""
        for future in self._waiting:
            assert isinstance(future.exception(20), UserDisabled | UserErased | None)
        self._waiting.clear()

    def sign_in(self) -> None:
        user_id, session_id = self.dice.choice(USERS), UUID(int=self.dice.getrandbits(128), version=4)
        said: dict[str, Any] = {"session_id": session_id, "remember_me": self.dice.random() < 0.3}
        if self.dice.random() < 0.5:
            said["client"] = ClientDetails("192.0.2.7", "Mozilla/5.0")
        if self.dice.random() < 0.3:
            said |= {"idp_name": "okta", "auth_time": self._clock.now(), "amr": ("pwd", "otp")}
        if (own := [known for owner, known in self.sessions if owner == user_id]) and self.dice.random() < 0.3:
            said["replaces"] = self.dice.choice(own[-3:])
        self._waiting.append(self.driver.signing_in(user_id, **said))
        self.sessions.append((user_id, session_id))

    def touch(self) -> None:
        if self.sessions:
            user_id, session_id = self.dice.choice(self.sessions[-12:])
            self._waiting.append(self.ledger.touch_session(self.driver.stream(user_id), session_id, request()))

    def revoke(self) -> None:
        if self.sessions:
            user_id, session_id = self.dice.choice(self.sessions[-12:])
            reason = self.dice.choice([EndReason.SIGNED_OUT, EndReason.REVOKED_BY_USER, EndReason.REVOKED_BY_ADMIN])
            stream = self.driver.stream(user_id)
            self._waiting.append(self.ledger.revoke_session(stream, session_id, reason, request()))

    def revoke_all(self) -> None:
        if self.sessions:
            user_id, keep = self.dice.choice(self.sessions)
            stream = self.driver.stream(user_id)
            keeping = self.dice.choice([keep, None])
            revoking = self.ledger.revoke_all_sessions(stream, EndReason.REVOKE_ALL, request(), keep=keeping)
            self._waiting.append(revoking)

    def disable(self) -> None:
        self._waiting.append(self.ledger.disable_user(self.dice.choice(USERS), request()))

    def enable(self) -> None:
        self._waiting.append(self.ledger.enable_user(self.dice.choice(USERS), request()))

    def erase(self) -> None:
        user_id = self.dice.choice(USERS[3:])
        self._waiting.append(self.driver.signing_in(user_id))
        self._waiting.append(self.ledger.erase_user(user_id, request()))

    def time_passes(self) -> None:
        self.settle()
        self._clock.advance(self.dice.choice([1, 61, 900, 1799.999999, 1800, 7200]))

    def sweep(self) -> None:
        self.settle()
        self.driver.service.sweeper.sweep()

    def follow(self) -> None:
        """The follower runs from here to the next restart."""
        if not self.driver.service.follower.is_leading:
            self.driver.service.start()
            until(lambda: self.driver.service.follower.is_leading)

    def restart(self) -> None:
        self.settle()
        self.driver.service.close()
        self.driver = self._open()

    @property
    def ledger(self) -> Any:
        return self.driver.ledger


SEEDS = range(3)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.usefixtures("small_pages")
def test_a_rebuild_after_any_history_is_identical(
    open_service: OpenService, drive: Drive, clock: ManualClock, seed: int
):
    driver = Story(seed, open_service, drive, clock).play()
    driver.service.follower.close()
    driver.service.keys_database.close()
    comparison = rebuilt(driver)
    assert (comparison.shapes, comparison.rows) == ([], [])
    assert comparison.identical
    assert comparison.events == driver.head()


@pytest.mark.parametrize("page", [7, 1_000])
def test_every_read_model_is_rebuilt_identical(
    open_service: OpenService, drive: Drive, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, page: int
):
    driver = Story(11, open_service, drive, clock).play()
    driver.service.follower.close()
    driver.service.close()
    again = drive(open_service())
    again.service.start()
    until(lambda: again.tracked("audit.1") == again.head())
    monkeypatch.setattr(shadow, "PAGE", page)
    for name, projection in PROJECTIONS.items():
        comparison = rebuild(again.service.database, projection)
        assert comparison.identical, (name, comparison)
        assert comparison.events == again.head()


@pytest.mark.parametrize("seed", SEEDS)
def test_after_any_history_the_list_says_what_the_users_stream_says(
    open_service: OpenService, drive: Drive, clock: ManualClock, seed: int
):
    driver = Story(seed, open_service, drive, clock).play()
    assert {user_id: set(driver.active(user_id)) for user_id in USERS} == {
        user_id: live_sessions(driver, user_id) for user_id in USERS
    }


def live_sessions(driver: Driver, user_id: str) -> set[UUID]:
    """By the aggregate, replayed from the log without a snapshot."""
    user = None
    for stored in driver.service.recorder.select_events(driver.stream(user_id)):
        user = driver.service.mapper.to_domain_event(stored).mutate(user)
    if not isinstance(user, User) or user.disabled:
        return set()
    return {session.session_id for session in user.sessions.values() if session.is_live(driver.service.clock.now())}


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_the_stories_are_worth_telling(open_service: OpenService, drive: Drive, clock: ManualClock):
    told: set[Any] = set()
    for seed in SEEDS:
        driver = Story(seed, open_service, drive, clock).play()
        told |= {fact.reason for fact in driver.facts(SessionRevoked)}
        told |= {type(fact).__name__ for fact in driver.facts(SessionTouched)}
        driver.service.close()
        clock.advance(10**6)
    assert told == {*EndReason, "SessionTouched"}


# -- what a rebuild finds


def altered(table: str, column: str, value: Any) -> Callable[[Connection, UUID], None]:
    def alter(connection: Connection, session_id: UUID) -> None:
        tables = SessionsProjection()
        changed = {"sessions": tables.sessions, "users": tables.users}[table]
        where = changed.c.session_id == session_id if table == "sessions" else text("1 = 1")
        assert connection.execute(update(changed).where(where).values({column: value})).rowcount == 1

    return alter


def lost(connection: Connection, session_id: UUID) -> None:
    sessions = SessionsProjection().sessions
    connection.execute(delete(sessions).where(sessions.c.session_id == session_id))


def invented(connection: Connection, session_id: UUID) -> None:
    sessions = SessionsProjection().sessions
    row = connection.execute(select(sessions).where(sessions.c.session_id == session_id)).one()._asdict()
    connection.execute(sessions.insert().values({**row, "session_id": uuid4(), "token_hash": b"another"}))


SESSION_COLUMNS = {
    **{"stream": uuid4(), "token_hash": b"another", "created_version": 9, "created_event": uuid4(), "created_at": 1},
    **{"last_active_at": 1, "idle_timeout": 9, "absolute_timeout": 9, "remember_me": True, "idp_name": "okta"},
    **{"auth_time": 1, "amr": '["otp"]', "device": "Firefox", "client": b"another", "ended_at": 1},
    **{"end_reason": "signed_out", "ended_by": "self"},
}
USER_COLUMNS = {"enabled": False, "disabled_version": 9, "disabled_at": 1}
ALTERATIONS = {
    **{f"sessions.{name}": altered("sessions", name, value) for name, value in SESSION_COLUMNS.items()},
    **{f"users.{name}": altered("users", name, value) for name, value in USER_COLUMNS.items()},
    "a row lost": lost,
    "a row invented": invented,
}


def test_every_column_is_altered_once():
    tables = SessionsProjection()
    assert {"session_id", *SESSION_COLUMNS} == set(tables.sessions.c.keys())
    assert {"stream", *USER_COLUMNS} == set(tables.users.c.keys())


def test_a_row_altered_by_hand_is_named_with_both_its_faces_and_replaced(driver: Driver):
    session_id = driver.sign_in()
    for name, alter in ALTERATIONS.items():
        with driver.service.database.transaction() as connection:
            alter(connection, session_id)
        dry = rebuilt(driver, dry_run=True)
        comparison = rebuilt(driver)
        assert comparison == dry, name
        [difference] = comparison.rows
        assert comparison.differing == 1
        table, _, column = name.partition(".")
        if column:
            assert (difference.table, list(difference.live or ())) == (table, [column]), name
            assert difference.key == ({"stream": driver.stream()} if table == "users" else {"session_id": session_id})
            assert difference.live != difference.rebuilt
        else:
            assert (difference.live is None, difference.rebuilt is None) == (name == "a row lost", name != "a row lost")
        assert rebuilt(driver).identical, name


def test_a_difference_reads_well_and_leaves_sealed_what_is_sealed(driver: Driver):
    session_id = driver.sign_in(client=ClientDetails("192.0.2.7", "Mozilla/5.0"))
    with driver.service.database.transaction() as connection:
        altered("sessions", "end_reason", "signed_out")(connection, session_id)
        altered("sessions", "client", None)(connection, session_id)
    [difference] = rebuilt(driver).rows
    assert str(difference).startswith(f"sessions {session_id}: client is None live, ")
    assert str(difference).endswith("; end_reason is signed_out live, None rebuilt")
    assert "192.0.2.7" not in str(difference)


def test_of_many_rows_that_differ_all_are_counted_and_a_few_named(driver: Driver):
    for _ in range(15):
        driver.sign_in()
    with driver.service.database.transaction() as connection:
        connection.execute(update(SessionsProjection().sessions).values(device="Firefox"))
    comparison = rebuilt(driver)
    assert (comparison.differing, len(comparison.rows)) == (15, 10)


@pytest.mark.parametrize(
    "changes",
    [
        ["ALTER TABLE sessions ADD COLUMN note text"],
        ["DROP INDEX sessions_token"],
        ["DROP INDEX sessions_token", "CREATE INDEX sessions_token ON sessions (token_hash)"],
        ["DROP INDEX sessions_live", "CREATE INDEX sessions_live ON sessions (stream)"],
    ],
    ids=["a column more", "an index less", "an index not unique", "an index not partial"],
)
def test_a_schema_altered_by_hand_is_named(driver: Driver, changes: list[str]):
    driver.sign_in()
    with driver.service.database.transaction() as connection:
        for change in changes:
            connection.exec_driver_sql(change)
    assert rebuilt(driver).shapes == ["sessions: the tables have different columns or indexes"]
    assert rebuilt(driver).identical


def test_a_table_that_is_gone_is_there_again(driver: Driver):
    session_id = driver.sign_in()
    with driver.service.database.transaction() as connection:
        connection.exec_driver_sql("DROP TABLE sessions")
    assert rebuilt(driver).shapes == ["sessions: there is no such table"]
    assert driver.active() == [session_id]
    assert driver.revoke(session_id)
    assert rebuilt(driver).identical


def test_tables_that_are_all_gone_are_there_again(driver: Driver):
    session_id = driver.sign_in()
    with driver.service.database.transaction() as connection:
        connection.exec_driver_sql("DROP TABLE sessions")
        connection.exec_driver_sql("DROP TABLE users")
    assert len(rebuilt(driver).shapes) == 2
    assert driver.active() == [session_id]
    assert rebuilt(driver).identical


def test_an_empty_log_is_rebuilt_too(driver: Driver):
    assert rebuilt(driver) == Comparison(0, [], 0, [])


@pytest.mark.parametrize("ahead", [1, 1_000])
def test_a_model_that_says_it_is_further_than_the_log_is_compared_where_the_log_ends(driver: Driver, ahead: int):
    """As after a log was cut short."""
    driver.sign_in()
    set_tracked(driver, SessionsProjection.name, driver.head() + ahead)
    comparison = rebuild(driver.service.database, SessionsProjection)
    assert (comparison.identical, comparison.events) == (True, 2)
    assert driver.tracked(SessionsProjection.name) == 2


def test_names_of_tables_indexes_and_constraints_are_the_same_after_a_rebuild(driver: Driver):
    driver.sign_in()
    before = names(driver)
    for _ in range(2):
        assert rebuilt(driver).identical
        assert names(driver) == before


def names(driver: Driver) -> set[tuple[str, ...]]:
    """Every name in the database's schema, with what it is a name of."""
    if driver.service.database.is_sqlite:
        query = "SELECT type, name, tbl_name FROM sqlite_schema"
    else:
        query = """SELECT relkind::text, relname, '' FROM pg_class WHERE relnamespace = current_schema()::regnamespace
                   UNION ALL SELECT 'constraint', conname, conrelid::regclass::text FROM pg_constraint
                   WHERE connamespace = current_schema()::regnamespace"""
    with driver.service.database.reading() as connection:
        found = {tuple(row) for row in connection.exec_driver_sql(query)}
    assert any("sessions_token" in row for row in found)
    return {row for row in found if not row[1].startswith("pg_toast")}


def test_a_rebuild_leaves_no_table_behind_and_minds_none_that_a_killed_one_left(driver: Driver):
    driver.sign_in()
    with driver.service.database.transaction() as connection:
        left = SessionsProjection(SUFFIX)
        left.create_tables(connection)
        connection.execute(left.users.insert().values(stream=driver.stream(), enabled=False, disabled_version=7))
        SessionsProjection(REPLACED).create_tables(connection)
    assert rebuilt(driver).identical
    assert not any(SUFFIX in name or REPLACED in name for _, name, _ in names(driver))
    with driver.service.database.reading() as connection:
        assert not any(SUFFIX in name for name in connection.execute(select(tracking.c.name)).scalars())


# -- events that cannot be folded (F-18, F-19)


def test_a_broken_upcaster_ends_a_rebuild_and_the_old_model_serves_on(driver: Driver, monkeypatch: pytest.MonkeyPatch):
    def broken(state: dict[str, Any]) -> None:
        raise LookupError("no such field")

    first = driver.sign_in()
    driver.touch(first)
    monkeypatch.setattr(SessionCreated, "class_version", 2, raising=False)
    monkeypatch.setattr(SessionCreated, "upcast_v1_v2", broken, raising=False)
    with pytest.raises(RebuildStopped, match=r"stopped at position 2, .*no such field"):
        rebuilt(driver)
    assert driver.active() == [first]
    monkeypatch.undo()
    assert rebuilt(driver).identical


POISON = {
    "of an unknown type": ("SessionVanished", b"{}"),
    "that is no JSON": ("SessionTouched", b"\x00garbage"),
    "that lacks a field": ("SessionTouched", b'{"timestamp":1}'),
}


@pytest.mark.parametrize("page", [2, 1_000])
@pytest.mark.parametrize("poison", POISON)
def test_an_event_that_cannot_be_folded_ends_a_rebuild_there(
    driver: Driver, database: Database, monkeypatch: pytest.MonkeyPatch, poison: str, page: int
):
    monkeypatch.setattr(shadow, "PAGE", page)
    sessions = {driver.sign_in() for _ in range(3)}
    insert_as_owner(driver.service, database, StoredEvent(driver.stream("mallory"), 1, *POISON[poison]))
    for _ in range(2):
        with pytest.raises(RebuildStopped, match="stopped at position 5,"):
            rebuilt(driver)
    assert rebuilt(driver, dry_run=True).identical, "as far as the live tables have come"
    assert set(driver.active()) == sessions


def test_a_session_that_is_created_twice_ends_a_rebuild_at_the_second_time(driver: Driver, database: Database):
    driver.sign_in()
    [_, created] = driver.service.recorder.select_events(driver.stream())
    insert_as_owner(driver.service, database, replace(created, originator_id=driver.stream("mallory")))
    driver.service.close()
    set_tracked(driver, SessionsProjection.name, 3)
    with pytest.raises(RebuildStopped, match="stopped at position 3,"):
        rebuilt(driver)


@pytest.mark.parametrize("stops_at", ["pour", "switch"])
def test_a_rebuild_that_ended_before_or_after_its_rows_were_written_goes_on(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, stops_at: str
):
    class Stopped(Exception):
        pass

    def stop(*_: Any) -> None:
        raise Stopped

    sessions = [driver.sign_in() for _ in range(2)]
    driver.touch(sessions[0])
    driver.revoke(sessions[1])
    with monkeypatch.context() as killed:
        killed.setattr({"pour": Staging, "switch": projections.rebuild._Rebuild}[stops_at], stops_at, stop)
        with pytest.raises(Stopped):
            rebuilt(driver)
    driver.revoke(sessions[0])
    assert rebuilt(driver).identical
    assert not any(SUFFIX in name for _, name, _ in names(driver))


# -- while the ledger goes on


@pytest.mark.usefixtures("small_pages")
def test_events_appended_while_it_folds_are_included(driver: Driver, monkeypatch: pytest.MonkeyPatch):
    first = driver.sign_in()
    happening = iter([lambda: [driver.revoke(first), driver.sign_in(), driver.sign_in("bob")]])

    def read_while_something_happens(records: Any) -> Any:
        for happens in happening:
            happens()
        return plain_entries(records)

    monkeypatch.setattr(shadow, "plain_entries", read_while_something_happens)
    comparison = rebuilt(driver)
    assert comparison == Comparison(driver.head(), [], 0, [])
    assert len(driver.facts(SessionCreated)) == 3


def test_events_appended_after_it_has_compared_are_included(driver: Driver, monkeypatch: pytest.MonkeyPatch):
    first, fold = driver.sign_in(), shadow.Shadow.fold

    def fold_while_somebody_writes(self: Any, *arguments: Any) -> None:
        fold(self, *arguments)
        driver.revoke(first)
        driver.sign_in()
        driver.sign_in("bob")

    monkeypatch.setattr(shadow.Shadow, "fold", fold_while_somebody_writes)
    assert rebuilt(driver).identical
    monkeypatch.undo()
    assert len(driver.facts(SessionCreated)) > 3
    assert driver.tracked(SessionsProjection.name) == driver.head()
    assert rebuilt(driver).identical


# -- an append that wrote no read model (D10)


def append_as_the_library_does(driver: Driver, user_id: str = "alice") -> UUID:
    """A sign-in decided on the library's repository and saved by the library's recorder; the session's id."""
    service, session_id = driver.service, uuid4()
    user: User = service.ledger.repository.get(driver.stream(user_id))
    user.acting(Context(service.clock.now(), "key:foreign", uuid4(), None, uuid4))
    user.create_session(SignIn(session_id, token_hash(session_id), "Foreign"), Limits())
    service.recorder.insert_events([service.mapper.to_stored_event(fact) for fact in user.collect_events()])
    return session_id


@pytest.mark.parametrize("by", ["the same user", "another user"])
def test_a_foreign_append_is_caught_up_before_the_next_write(driver: Driver, by: str):
    known = driver.sign_in()
    foreign = append_as_the_library_does(driver)
    assert driver.by_id(foreign) is None
    driver.sign_in("alice" if by == "the same user" else "bob")
    assert set(driver.active()) >= {known, foreign}
    assert driver.tracked(SessionsProjection.name) == driver.head()
    assert rebuilt(driver).identical


def test_a_foreign_append_is_caught_up_by_a_command_that_records_nothing(driver: Driver):
    driver.sign_in()
    foreign = append_as_the_library_does(driver)
    assert not driver.revoke(uuid4())
    assert driver.is_accepted(foreign)
    assert rebuilt(driver).identical


def test_a_foreign_append_is_caught_up_after_a_restart(open_service: OpenService, drive: Drive):
    driver = drive(open_service())
    driver.sign_in()
    foreign = [append_as_the_library_does(driver) for _ in range(3)]
    driver.service.close()
    again = drive(open_service())
    again.sign_in("bob")
    assert set(again.active()) >= set(foreign)
    assert rebuilt(again).identical


def test_the_appends_of_another_service_need_no_catching_up(open_service: OpenService, drive: Drive):
    first, second = drive(open_service()), drive(open_service())
    for _ in range(3):
        first.sign_in()
        second.sign_in()
    assert first.active() == second.active()
    assert rebuilt(first).identical
