"""What was restored is examined: log, keys, who was erased, read models; and what is lost is told."""

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select, update

from domain.errors import StoreUnavailable
from domain.events import ClientDetails
from projections.restoring import Condition, Restored, examine
from projections.sessions import SessionsProjection
from store import database as store_database
from store.keys import KeyStore, user_keys
from store.schema import bindings, identities, tracking
from store.verifying import Signed
from tests.postgres import Database
from tests.projections.driver import Driver, set_tracked
from tests.store.tampering import Tampering

CLIENT = ClientDetails("198.51.100.213", "Canary/1.0")
PEOPLE = ("alice", "bob", "carol")
"""Each has a sign-in, which is two events."""

Examine = Callable[..., Condition]


@pytest.fixture
def examined(driver: Driver, tmp_path: Path) -> Examine:
    for user_id in PEOPLE:
        driver.sign_in(user_id, client=CLIENT)
    service = driver.service

    def examine_it(
        last_signed: Signed | None = None,
        kept: Sequence[Signed] = (),
        *,
        master_key: Path = tmp_path / "master.key",
        keys_before: store_database.Database | None = None,
    ) -> Condition:
        restored = Restored(service.database, service.keys_database, master_key, keys_before)
        return examine(restored, service.signing_key.verifier, last_signed, kept)

    return examine_it


def seal(driver: Driver) -> Signed:
    """A checkpoint of all that is there; what it says."""
    driver.service.sealer.seal()
    last = driver.service.signing_key.remembered()
    return Signed(last.size, last.root, "the signer's memory")


def test_a_ledger_that_is_whole_has_no_fault(driver: Driver, examined: Examine):
    last = seal(driver)
    driver.sign_in("dave")
    found = examined(last, [last])
    assert found.faults == []
    assert found.log is not None
    assert (found.log.events, found.log.sealed, found.lost) == (8, 6, 0)
    assert {name: model.identical for name, model in found.read_models.items()} == {
        "sessions": True,
        "api_keys": True,
        "audit": True,
    }


def test_what_was_signed_behind_its_end_is_lost_and_no_fault(examined: Examine):
    found = examined(Signed(9, b"\0" * 32, "the signer's memory"))
    assert (found.faults, found.lost) == ([], 3)


def test_a_checkpoint_that_was_kept_must_be_in_it(examined: Examine):
    found = examined(kept=[Signed(9, b"\0" * 32, "the note of Tuesday")])
    assert found.faults == ["position 7: missing: the note of Tuesday was signed at 9"]
    found = examined(kept=[Signed(6, b"\0" * 32, "the note of Monday")])
    assert found.faults == ["position 1: one of the events from here to 6 is not the one that was signed"]


def test_a_user_without_a_key_is_named(driver: Driver, examined: Examine):
    with driver.service.keys_database.transaction() as connection:
        connection.execute(delete(user_keys).where(user_keys.c.stream == driver.stream("bob")))
    assert examined().faults == [
        f"1 users of the log have no key: what is sealed of them cannot be read. The first: {driver.stream('bob')}"
    ]


def test_a_key_that_is_not_the_one_that_sealed_is_named(driver: Driver, examined: Examine):
    streams = [driver.stream(user_id) for user_id in PEOPLE]
    others = driver.service.keys.master.wrap(b"\1" * 32, streams[0].bytes)
    with driver.service.keys_database.transaction() as connection:
        for stream, wrapped in zip(streams, (others, b"torn", b""), strict=True):
            connection.execute(update(user_keys).where(user_keys.c.stream == stream).values(wrapped=wrapped))
    assert examined().faults == [
        f"3 users of the log have a key that does not open what was sealed of them. The first: {streams[0]}"
    ]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("garbled", [-1, "text", 1.5])
def test_what_is_no_key_at_all_is_named(driver: Driver, examined: Examine, garbled: object):
    with driver.service.keys_database.transaction() as connection:
        connection.exec_driver_sql("UPDATE user_keys SET wrapped = ? WHERE rowid = 1", (garbled,))
    [fault] = examined().faults
    assert fault.startswith("1 users of the log have a key that does not open what was sealed of them.")


def test_who_bears_the_name_of_another_is_named(driver: Driver, examined: Examine):
    """The id that a check answers is the one in `identities`, and no fold of the log restores it."""
    with driver.service.database.transaction() as connection:
        connection.execute(update(identities).where(identities.c.user_id == "bob").values(user_id="alice"))
        connection.execute(delete(identities).where(identities.c.user_id == "carol"))
    [fault] = examined().faults
    assert fault.startswith("2 users of the log are not called what was sealed of them, in the table identities.")


def test_a_follower_that_would_skip_what_comes_next_is_named(driver: Driver, examined: Examine):
    with driver.service.database.transaction() as connection:
        connection.execute(insert(tracking).values(name="destroy-key-on-user-erased", position=7))
    set_tracked(driver, SessionsProjection.name, 8)
    found = examined()
    assert found.faults == [
        "destroy-key-on-user-erased stands at position 7, and the log ends at 6",
        f"{SessionsProjection.name} stands at position 8, and the log ends at 6",
    ]


def test_another_master_key_is_told(examined: Examine, tmp_path: Path):
    other = store_database.Database(f"sqlite:///{tmp_path}/other.db")
    KeyStore(other, tmp_path / "other.key")
    other.close()
    [fault] = examined(master_key=tmp_path / "other.key").faults
    assert "is not the master key that these keys were wrapped with" in fault


def test_keys_of_another_log_are_told(driver: Driver, examined: Examine):
    with driver.service.database.transaction() as connection:
        connection.execute(update(bindings).where(bindings.c.name == "pepper").values(value=b"another"))
    [fault] = examined().faults
    assert fault.endswith("are not those that this log was written with.")


def test_who_is_erased_and_has_a_key_again_is_named(driver: Driver, examined: Examine):
    stream = driver.stream("alice")
    with driver.service.keys_database.reading() as connection:
        wrapped = connection.execute(select(user_keys.c.wrapped).where(user_keys.c.stream == stream)).scalar()
    driver.erase("alice")
    driver.service.erasure.carry_out(stream)
    assert examined().faults == []
    with driver.service.keys_database.transaction() as connection:
        connection.execute(update(user_keys).where(user_keys.c.stream == stream).values(wrapped=wrapped))
    [fault] = examined().faults
    assert fault.startswith("1 users of the log are erased and have a key again: a start of the service destroys it")


def test_who_was_erased_since_is_named(driver: Driver, examined: Examine, tmp_path: Path):
    before = store_database.Database(f"sqlite:///{tmp_path}/before.db")
    KeyStore(before, tmp_path / "before.key").erase(driver.stream("carol"))
    [fault] = examined(keys_before=before).faults
    before.close()
    assert fault.startswith("1 users of the log were erased since: restore the log alone")
    assert fault.endswith(str(driver.stream("carol")))


def test_a_tombstone_that_the_log_is_too_old_for_is_no_fault(driver: Driver, examined: Examine):
    driver.service.keys.erase(driver.stream("carol"))
    assert examined().faults == []


def test_a_read_model_that_is_not_the_fold_is_named_with_its_cure(driver: Driver, examined: Examine):
    sessions = SessionsProjection().sessions
    with driver.service.database.transaction() as connection:
        connection.execute(update(sessions).where(sessions.c.stream == driver.stream("bob")).values(device="another"))
    found = examined()
    [fault] = found.faults
    assert fault.startswith("read model sessions: 1 rows are not what the log says, as sessions ")
    assert fault.endswith("./scripts/ledger rebuild sessions repairs it")
    assert not found.read_models["sessions"].identical
    assert found.read_models["audit"].identical


def test_an_event_that_cannot_be_folded_is_named(driver: Driver, database: Database, examined: Examine):
    owner = Tampering(database)
    owner.set(2, "state", b"{}")
    owner.close()
    faults = examined().faults
    assert faults[0].startswith("position 2: ")
    assert faults[-1].startswith("read model sessions: It stopped at position 2")


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_database_that_cannot_be_written_is_no_fault_of_what_is_in_it(
    driver: Driver, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    service = driver.service
    monkeypatch.setattr(store_database, "BUSY_TIMEOUT_MS", 50)
    with closing(store_database.Database(database.url)) as log, service.recorder.appending():
        restored = Restored(log, service.keys_database, tmp_path / "master.key")
        with pytest.raises(StoreUnavailable, match="database is locked"):
            examine(restored, service.signing_key.verifier, None, [])


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_what_is_no_id_where_one_should_be_is_told(driver: Driver, database: Database, examined: Examine):
    with driver.service.database.transaction() as connection:
        connection.exec_driver_sql("INSERT INTO erasures VALUES ('abc', 1)")
    [fault] = examined().faults
    assert fault.startswith("read model sessions: 1 rows are not what the log says, as erasures abc")
    owner = Tampering(database)
    owner.set(1, "stream", b"abc")
    owner.close()
    assert "The database is damaged: b'abc' stands where an id should." in examined().faults
