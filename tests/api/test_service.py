"""What is checked when everything behind HTTP is opened."""

import asyncio
import logging
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

from api.ids import new_uuid7
from api.service import Service, Stores, durable
from domain.errors import OutcomeUnknown, StoreUnavailable
from domain.ledger import Recorded
from domain.session import Limits
from store.database import Database as Connections
from store.master_key import MasterKeyError
from store.schema import invalidations_index
from tests.postgres import Database, PostgresCluster
from tests.store.tampering import Tampering

ON_POSTGRESQL = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


@pytest.fixture
def stores(database: Database, tmp_path: Path) -> Stores:
    return Stores(database.url, database.keys_url, tmp_path / "master.key", database.owner_url)


def open_and_close(stores: Stores) -> None:
    Service(stores, Limits(), new_uuid7).close()


def test_a_log_is_not_opened_with_keys_that_it_was_not_written_with(stores: Stores, tmp_path: Path):
    open_and_close(stores)
    other = replace(stores, keys_url=f"sqlite:///{tmp_path}/other.db", master_key_file=tmp_path / "other.key")
    with pytest.raises(MasterKeyError, match=r"other\.db are not those that this log was written with"):
        open_and_close(other)
    open_and_close(stores)


@ON_POSTGRESQL
def test_a_log_that_the_services_own_role_owns_is_warned_of(stores: Stores, caplog: pytest.LogCaptureFixture):
    open_and_close(replace(stores, owner_url=None))
    assert "owns the log" in caplog.text


@ON_POSTGRESQL
def test_a_log_that_the_services_own_role_owns_is_refused_where_another_role_should(stores: Stores):
    open_and_close(replace(stores, owner_url=None))
    with pytest.raises(StoreUnavailable, match="own role owns the table events"):
        open_and_close(stores)


@ON_POSTGRESQL
def test_a_log_that_another_role_owns_is_fine(stores: Stores, caplog: pytest.LogCaptureFixture):
    open_and_close(stores)
    open_and_close(replace(stores, owner_url=None))
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@ON_POSTGRESQL
def test_an_index_that_only_the_owner_can_make_is_missed_until_he_has(stores: Stores, caplog: pytest.LogCaptureFixture):
    open_and_close(stores)
    owner = Connections(stores.owner_url or "")
    with owner.transaction() as connection:
        invalidations_index.drop(connection)
    owner.close()
    for owner_url, warned in ((None, True), (stores.owner_url, False), (None, False)):
        caplog.clear()
        open_and_close(replace(stores, owner_url=owner_url))
        assert ("the log lacks an index" in caplog.text) is warned


def test_a_log_that_its_triggers_protect_no_longer_is_told_of(
    stores: Stores, database: Database, caplog: pytest.LogCaptureFixture
):
    open_and_close(stores)
    assert "the log is not as it was made" not in caplog.text
    Tampering(database).close()
    open_and_close(stores)
    [record] = [record for record in caplog.records if "the log is not as it was made" in record.message]
    assert any("disabled" in what and "TRIGGER head_says_the_last" in what for what in record.fields["what"])


@ON_POSTGRESQL
def test_keys_that_a_crash_may_lose_are_refused(stores: Stores, postgres_cluster: PostgresCluster):
    postgres_cluster.execute("ALTER ROLE ledger_app SET synchronous_commit = off")
    try:
        with pytest.raises(StoreUnavailable, match="synchronous_commit = off"):
            open_and_close(stores)
    finally:
        postgres_cluster.execute("ALTER ROLE ledger_app RESET synchronous_commit")


@pytest.mark.parametrize(("runs", "refusal"), [(False, StoreUnavailable), (True, OutcomeUnknown)])
def test_a_command_that_waits_too_long_is_taken_back_or_its_outcome_is_unknown(
    runs: bool, refusal: type[Exception], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("api.service.PATIENCE_S", 0.01)
    future: Future[Recorded[bool]] = Future()
    if runs:
        future.set_running_or_notify_cancel()
    with pytest.raises(StoreUnavailable) as refused:
        asyncio.run(durable(future))
    assert type(refused.value) is refusal
    assert future.cancelled() is not runs
