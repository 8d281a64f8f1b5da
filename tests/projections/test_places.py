"""A projection that follows the log, beside policies."""

import logging
from collections.abc import Sequence
from typing import Any

import pytest
from eventsourcing.persistence import StoredEvent
from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, insert, select

from domain.events import SessionCreated, UserDisabled
from projections import places
from projections.parking import Parked, parked_now, resume
from store.recorder import Entry
from tests.postgres import Database
from tests.projections.conftest import Follow
from tests.projections.driver import Driver, has_caught_up, insert_as_owner, progress_of, set_tracked, until


class Diary:
    """A read model that notes position and topic of each event; it fails on a position while `fails_at` says so."""

    name = "diary.1"

    def __init__(self, driver: Driver, fails_at: int = 0) -> None:
        self._database = driver.service.database
        self.fails_at = fails_at
        self.batches: list[int] = []
        metadata = MetaData()
        self.table = Table("diary", metadata, Column("position", Integer, primary_key=True), Column("topic", Text))
        with self._database.transaction() as connection:
            metadata.create_all(connection)

    def create_tables(self, connection: Connection) -> None:
        """They are there."""

    def apply(self, connection: Connection, entries: Sequence[Entry]) -> None:
        for entry in entries:
            connection.execute(insert(self.table).values(position=entry.position, topic=entry.fact.TOPIC))
            if entry.position == self.fails_at:
                raise RuntimeError("no")
        self.batches.append(len(entries))

    def noted(self) -> list[Any]:
        with self._database.reading() as connection:
            return [tuple(row) for row in connection.execute(select(self.table).order_by(self.table.c.position))]


@pytest.fixture
def diary(driver: Driver) -> Diary:
    return Diary(driver)


def log_of(driver: Driver) -> list[tuple[int, str]]:
    return [(n.id, n.topic) for n in driver.service.recorder.select_notifications(None, 1_000)]


def stopped(driver: Driver) -> dict[str, Parked]:
    with driver.service.database.reading() as connection:
        return parked_now(connection)


def test_a_projection_applies_every_event_once_and_in_order(driver: Driver, diary: Diary, follow: Follow):
    driver.sign_in()
    follower = follow(projections=[diary])
    driver.sign_in("bob")
    driver.disable()
    until(lambda: has_caught_up(driver, follower, diary.name))
    assert diary.noted() == log_of(driver)
    assert progress_of(follower, diary.name).is_projection


def test_a_long_log_is_applied_in_batches(
    driver: Driver, diary: Diary, follow: Follow, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(places, "BATCH_SIZE", 4)
    for _ in range(9):
        driver.sign_in()
    follower = follow(projections=[diary])
    until(lambda: has_caught_up(driver, follower, diary.name))
    assert diary.noted() == log_of(driver)
    assert diary.batches == [4, 4, 2]


def test_a_restart_goes_on_where_the_rows_end(driver: Driver, diary: Diary, follow: Follow):
    driver.sign_in()
    follower = follow(projections=[diary])
    until(lambda: has_caught_up(driver, follower, diary.name))
    follower.close()
    tracked = driver.tracked(diary.name)
    driver.sign_in()
    follower = follow(projections=[diary])
    until(lambda: has_caught_up(driver, follower, diary.name))
    assert tracked == 2
    assert diary.noted() == log_of(driver)


def test_rows_and_position_are_one_transaction(driver: Driver, follow: Follow):
    for _ in range(3):
        driver.sign_in()
    diary = Diary(driver, fails_at=3)
    follower = follow(projections=[diary])
    until(lambda: diary.name in stopped(driver))
    assert diary.noted() == log_of(driver)[:2]
    assert driver.tracked(diary.name) == progress_of(follower, diary.name).position == 2


def test_what_fails_is_parked_before_the_event_that_it_fails_on_and_says_so_to_every_process(
    driver: Driver, follow: Follow, caplog: pytest.LogCaptureFixture
):
    for _ in range(3):
        driver.sign_in()
    diary, other = Diary(driver, fails_at=3), Diary(driver)
    other.name = "other"
    other.table = Table("other", MetaData(), Column("position", Integer, primary_key=True), Column("topic", Text))
    with driver.service.database.transaction() as connection:
        other.table.metadata.create_all(connection)
    follower = follow(projections=[diary, other])
    until(lambda: progress_of(follower, diary.name).parked)
    until(lambda: has_caught_up(driver, follower, other.name))
    [loud] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert (loud.fields["projection"], loud.fields["after_position"]) == (diary.name, 2)
    assert stopped(driver) == {
        diary.name: Parked(diary.name, 2, "RuntimeError('no') at position 3", driver.service.clock.micros())
    }


def test_it_tries_again_without_a_restart_once_it_is_resumed(driver: Driver, follow: Follow):
    for _ in range(3):
        driver.sign_in()
    diary = Diary(driver, fails_at=3)
    follower = follow(projections=[diary])
    until(lambda: diary.name in stopped(driver))
    diary.fails_at = 0
    with driver.service.database.transaction() as connection:
        answers = [resume(connection, diary.name), resume(connection, diary.name)]
    until(lambda: has_caught_up(driver, follower, diary.name))
    assert answers == [True, False]
    assert diary.noted() == log_of(driver)
    assert progress_of(follower, diary.name).parked is None


def test_what_still_fails_is_parked_again(driver: Driver, follow: Follow):
    driver.sign_in()
    diary = Diary(driver, fails_at=2)
    follow(projections=[diary])
    until(lambda: diary.name in stopped(driver))
    with driver.service.database.transaction() as connection:
        resume(connection, diary.name)
    until(lambda: diary.name in stopped(driver))
    assert diary.noted() == log_of(driver)[:1]


@pytest.mark.parametrize(
    ("topic", "state", "told"),
    [
        ("NeverHeardOf", b"{}", "NeverHeardOf"),
        (UserDisabled.TOPIC, b"\x00garbage", "Cannot read the stored state"),
        (SessionCreated.TOPIC, b'{"timestamp":1}', "Cannot read the stored state"),
    ],
    ids=["unknown topic", "no JSON", "fields missing"],
)
def test_a_poison_event_parks_the_projection_at_its_position_and_service_goes_on(
    driver: Driver, database: Database, diary: Diary, follow: Follow, topic: str, state: bytes, told: str
):
    """F-18."""
    session_id = driver.sign_in()
    insert_as_owner(driver.service, database, StoredEvent(driver.stream("mallory"), 1, topic, state))
    follower = follow(projections=[diary])
    until(lambda: diary.name in stopped(driver))
    parked = stopped(driver)[diary.name]
    assert parked.position == progress_of(follower, diary.name).position == 2
    assert "at position 3" in parked.reason
    assert told in parked.reason
    assert diary.noted() == log_of(driver)[:2]
    assert driver.is_accepted(session_id)


def test_a_leader_whose_row_was_moved_by_another_writes_nothing(
    driver: Driver, diary: Diary, follow: Follow, caplog: pytest.LogCaptureFixture
):
    driver.sign_in()
    follower = follow(projections=[diary])
    until(lambda: has_caught_up(driver, follower, diary.name))
    set_tracked(driver, diary.name, 3)
    driver.sign_in()
    driver.sign_in()
    until(lambda: "another process follows the log" in caplog.messages)
    until(lambda: has_caught_up(driver, follower, diary.name))
    assert [position for position, _ in diary.noted()] == [1, 2, 4]
