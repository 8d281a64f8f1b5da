"""Erased in one process, erased in all: also for one that has used the key, and after a backup is restored."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select, update

from api.service import Service
from domain.errors import UserErased as UserIsErased
from domain.events import ClientDetails, Fact, SessionCreated, SessionRevoked, UserErased
from domain.policies import DestroyKeyOnUserErased
from domain.user import TOMBSTONE
from projections.actors import ActorNames
from projections.audit import AuditProjection
from projections.rebuild import rebuild
from projections.sessions import SessionsProjection
from scripts.cli.opening import reading
from store import database as database_module
from store.keys import KeyStore, user_keys
from store.schema import tracking
from store.sealing import SealBroken, unseal_user_id
from tests.conftest import OpenService
from tests.postgres import Database
from tests.projections.conftest import Drive
from tests.projections.driver import Driver, has_caught_up, request, until
from tests.projections.other_process import OtherProcess

CLIENT = ClientDetails("198.51.100.213", "Canary/1.0")
RACES = 25


def erase(driver: Driver, user_id: str = "alice") -> None:
    driver.erase(user_id)
    driver.service.erasure.carry_out(driver.stream(user_id))


def keys_of(service: Service) -> list[tuple[object, bytes | None]]:
    with service.keys_database.reading() as connection:
        return [tuple(row) for row in connection.execute(select(user_keys))]


# -- two processes


def test_a_process_that_has_used_the_key_can_neither_read_nor_seal_afterwards(
    driver: Driver, other_process: OtherProcess
):
    other_process.ask("sign_in", "alice")
    assert other_process.ask("reads", "alice") == "alice"
    erase(driver)
    assert other_process.ask("reads", "alice") == "nothing"
    assert other_process.ask("seals", "alice") == "KeyErased"
    assert other_process.ask("at", time.monotonic(), "sign_in", "alice").split()[0] in ("UserErased", "KeyErased")
    assert other_process.ask("accepted", "alice") == "0"


def test_a_sign_in_that_races_the_erasure_in_another_process_comes_before_it_or_not_at_all(
    driver: Driver, other_process: OtherProcess
):
    for number in range(RACES):
        user_id = f"racer-{number}"
        driver.sign_in(user_id, client=CLIENT)
        moment = time.monotonic() + 0.01
        other_process.tell("at", moment, "sign_in", user_id)
        until(lambda moment=moment: time.monotonic() >= moment)
        erase(driver, user_id)
        other_process.answer()
        stream = driver.stream(user_id)
        story = [fact for fact in driver.facts(Fact) if fact.originator_id == stream]
        erased_at = next(n for n, fact in enumerate(story) if isinstance(fact, UserErased))
        assert {type(fact).__name__ for fact in story[erased_at + 1 :]} == {"SessionRevoked"}
        assert dict(keys_of(driver.service))[stream] is None


def test_who_decides_on_what_he_knew_before_refuses_that_sign_in_alone(open_service: OpenService, drive: Drive):
    here, there = drive(open_service()), drive(open_service())
    there.sign_in(client=CLIENT)
    erase(here)
    with here.service.recorder.appending():  # what comes meanwhile is one batch there
        signing_in = [there.signing_in(user_id, client=CLIENT) for user_id in ("alice", "bob")]
    assert isinstance(signing_in[0].exception(20), UserIsErased)
    assert there.is_accepted(signing_in[1].result(20).result.session_id)
    assert len(there.facts(SessionCreated)) == 2


def test_a_touch_that_comes_late_records_nothing(open_service: OpenService, drive: Drive):
    here, there = drive(open_service()), drive(open_service())
    session_id = there.sign_in(client=CLIENT)
    erase(here)
    assert there.touch(session_id) is False
    assert isinstance(here.facts(Fact)[-1], SessionRevoked)


def test_a_log_without_the_erasure_lets_nobody_in_whose_key_is_a_tombstone(driver: Driver):
    """As when a backup of the log is restored that is older than that of the keys."""
    driver.sign_in(client=CLIENT)
    driver.service.keys.erase(driver.stream())
    assert isinstance(driver.signing_in(client=CLIENT).exception(20), UserIsErased)


def test_such_a_log_learns_of_the_erasure_before_anything_is_served(open_service: OpenService, drive: Drive):
    driver = drive(open_service())
    session_id = driver.sign_in(client=CLIENT)
    for user_id in ("alice", "never enrolled there"):
        driver.service.keys.erase(driver.stream(user_id))
    restarted = drive(open_service())
    restarted.service.start()
    assert restarted.by_id(session_id) is None
    assert isinstance(restarted.signing_in().exception(20), UserIsErased)
    [fact] = restarted.facts(UserErased)
    assert (fact.originator_id, fact.actor) == (driver.stream(), TOMBSTONE)


# -- while somebody reads for long


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_long_reader_of_the_keys_holds_up_this_policy_alone(driver: Driver, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_MS", 600_000)
    service = driver.service
    driver.sign_in(client=CLIENT)
    with service.keys_database.snapshot() as reader:
        reader.execute(select(user_keys)).all()
        driver.erase()
        service.start()
        until(lambda: has_caught_up(driver, name=AuditProjection.name))
        assert not has_caught_up(driver, name=DestroyKeyOnUserErased.name)
    until(lambda: has_caught_up(driver, name=DestroyKeyOnUserErased.name))


# -- after a backup of the keys was restored


def restore(service: Service, rows: list[tuple[object, bytes | None]]) -> None:
    with service.keys_database.transaction() as connection:
        connection.execute(delete(user_keys))
        if rows:
            connection.execute(insert(user_keys), [{"stream": s, "wrapped": w} for s, w in rows])


BACKUPS: dict[str, Callable[[list[tuple[object, bytes | None]]], list[tuple[object, bytes | None]]]] = {
    "made before the erasure": lambda rows: rows,
    "made before he was enrolled": lambda _: [],
}


@pytest.mark.parametrize("backup", BACKUPS.values(), ids=BACKUPS.keys())
def test_a_key_that_was_restored_is_destroyed_before_anything_is_served(
    open_service: OpenService, drive: Drive, backup: Callable[..., list[tuple[object, bytes | None]]]
):
    driver = drive(open_service())
    driver.sign_in(client=CLIENT)
    before = keys_of(driver.service)
    erase(driver)
    restore(driver.service, backup(before))
    restarted = open_service()
    assert keys_of(restarted) == [(driver.stream(), None)]
    assert names(restarted).user(driver.stream()) is None


def test_a_command_that_only_reads_gives_a_restored_key_out_to_nobody(
    driver: Driver, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    driver.sign_in(client=CLIENT)
    before = keys_of(driver.service)
    erase(driver)
    restore(driver.service, before)
    monkeypatch.setenv("LEDGER_DATABASE_URL", database.url)
    monkeypatch.setenv("LEDGER_KEYS_DATABASE_URL", database.keys_url)
    monkeypatch.setenv("LEDGER_MASTER_KEY_FILE", str(tmp_path / "master.key"))
    with reading() as opened:
        assert opened.keys.find([driver.stream()]) == {}
    assert keys_of(driver.service) == before


def test_an_erasure_that_the_read_model_has_not_folded_yet_counts_too(open_service: OpenService, drive: Drive):
    driver = drive(open_service())
    driver.sign_in(client=CLIENT)
    before = keys_of(driver.service)
    erase(driver)
    with driver.service.database.transaction() as connection:
        connection.execute(delete(SessionsProjection().erasures))
        connection.execute(update(tracking).where(tracking.c.name == SessionsProjection.name).values(position=1))
    restore(driver.service, before)
    assert keys_of(open_service()) == [(driver.stream(), None)]


def test_neither_the_log_alone_nor_keys_with_the_tombstone_open_anything(driver: Driver):
    driver.sign_in(client=CLIENT)
    key = driver.service.keys.find([driver.stream()])[driver.stream()]
    assert names(driver.service).user(driver.stream()) == "alice"
    erase(driver)
    assert names(driver.service).user(driver.stream()) is None
    [enrolled] = [fact for fact in driver.facts(Fact) if fact.TOPIC == "UserEnrolled"]
    assert unseal_user_id(key, enrolled) == "alice"  # what an old backup of the keys could still do
    driver.sign_in("bob", client=CLIENT)
    [others_key] = driver.service.keys.find([driver.stream("bob")]).values()
    with pytest.raises(SealBroken):
        unseal_user_id(others_key, enrolled)


def names(service: Service) -> ActorNames:
    keys: KeyStore = service.keys
    return ActorNames(service.database, keys, service.mapper)


def test_who_acted_is_nameless_once_he_is_erased(driver: Driver):
    """Administrators are people, too."""
    admin = driver.ledger.enrol_user("admin", request()).result(20).result
    driver.ledger.disable_user("alice", request(f"user:{admin}")).result(20)
    assert names(driver.service).name(f"user:{admin}", driver.stream()) == "admin"
    erase(driver, "admin")
    assert names(driver.service).name(f"user:{admin}", driver.stream()) is None
    assert isinstance(driver.ledger.enrol_user("admin", request()).exception(20), UserIsErased)


# -- a rebuild


def test_a_rebuild_succeeds_and_shows_who_is_erased(driver: Driver):
    driver.sign_in(client=CLIENT)
    driver.sign_in("bob", client=CLIENT)
    erase(driver)
    with driver.service.database.transaction() as connection:
        connection.execute(delete(SessionsProjection().erasures))
    rebuild(driver.service.database, SessionsProjection)
    with driver.service.database.reading() as connection:
        erased = connection.execute(select(SessionsProjection().erasures.c.stream)).scalars().all()
        shown = connection.execute(select(SessionsProjection().sessions.c.stream)).scalars().all()
    assert (erased, shown) == ([driver.stream()], [driver.stream("bob")])
