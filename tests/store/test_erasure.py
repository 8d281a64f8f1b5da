"""What is destroyed of a person, to the last byte that SQLite keeps, and what is done when it is not possible yet."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import insert, select

from api.service import Service
from domain.errors import StoreUnavailable, UserErased
from domain.events import ClientDetails
from domain.ledger import Claim
from store import database as database_module
from store.keys import user_keys
from store.schema import idempotency, identities, snapshots
from tests.store.given import Caller, at_once, everything, refusal, request, result

CLIENT = ClientDetails("198.51.100.213", "Canary/1.0")
Files = Callable[[], bytes]


def sign_in(caller: Caller, user_id: str = "canary.person") -> None:
    claim = Claim(user_id.encode(), b"body", lambda session: session.session_id.bytes)
    result(caller.creates(user_id, claim, client=CLIENT))


def snapshot(service: Service, user_id: str) -> None:
    row = {"stream": service.keys.pseudonym(user_id), "version": 2, "topic": "UserSnapshot", "state": b"{}"}
    with service.database.transaction() as connection:
        connection.execute(insert(snapshots).values(row))


def keep_answers(service: Service, stream: UUID, count: int) -> None:
    row = {"fingerprint": b"", "stream": stream, "session_id": stream, "answer": None, "created_at": 0}
    with service.database.transaction() as connection:
        connection.execute(insert(idempotency), [{**row, "key": b"%d" % number} for number in range(count)])


def erase(caller: Caller, user_id: str = "canary.person") -> None:
    result(caller.service.ledger.erase_user(user_id, request()))
    caller.service.erasure.carry_out(caller.stream(user_id))


def wrapped(service: Service, user_id: str = "canary.person") -> bytes:
    with service.keys_database.reading() as connection:
        key = connection.execute(
            select(user_keys.c.wrapped).where(user_keys.c.stream == service.keys.pseudonym(user_id))
        )
        return bytes(key.scalar_one())


def test_a_tombstone_is_left_and_of_the_rest_nothing(service: Service, caller: Caller):
    for user_id in ("canary.person", "bob"):
        sign_in(caller, user_id)
        snapshot(service, user_id)
    erase(caller)
    assert service.keys.find([caller.stream("canary.person"), caller.stream("bob")]).keys() == {caller.stream("bob")}
    with service.keys_database.reading() as connection:
        assert (caller.stream("canary.person"), None) in connection.execute(select(user_keys)).all()
    with service.database.reading() as connection:
        for table in (identities, idempotency, snapshots):
            assert connection.execute(select(table.c.stream)).scalars().all() == [caller.stream("bob")]


def test_doing_it_again_or_at_once_comes_to_the_same(service: Service, caller: Caller):
    sign_in(caller)
    erase(caller)
    before = everything(service)
    at_once(*[lambda: service.erasure.carry_out(caller.stream("canary.person"))] * 3)
    assert everything(service) == before


def test_who_never_had_a_key_gets_none_any_more(service: Service, caller: Caller):
    service.keys.erase(caller.stream("stranger"))
    with service.keys_database.reading() as connection:
        assert connection.execute(select(user_keys)).all() == [(caller.stream("stranger"), None)]


def test_a_sign_in_that_is_repeated_by_its_key_is_refused_as_soon_as_he_is_erased(service: Service, caller: Caller):
    claim = Claim(b"key", b"body", lambda session: session.session_id.bytes)
    result(caller.creates("canary.person", claim))
    result(service.ledger.erase_user("canary.person", request()))
    assert isinstance(refusal(caller.creates("canary.person", claim)), UserErased)


def test_more_answers_are_deleted_than_a_statement_takes_parameters(service: Service, caller: Caller):
    sign_in(caller)
    keep_answers(service, caller.stream("canary.person"), 66_000)
    erase(caller)
    with service.database.reading() as connection:
        assert connection.execute(select(idempotency)).first() is None


# -- to the last byte, on SQLite


on_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
"""PostgreSQL keeps what was deleted for a while: decision 0013."""


@on_sqlite
def test_key_and_id_are_in_no_file(service: Service, caller: Caller, files: Files):
    sign_in(caller)
    traces = [wrapped(service), b"canary.person"]
    assert [trace in files() for trace in traces] == [True, True]
    erase(caller)
    assert [trace in files() for trace in traces] == [False, False]


@on_sqlite
def test_a_key_that_is_overwritten_would_stay_in_the_write_ahead_log(service: Service, caller: Caller, files: Files):
    sign_in(caller)
    key = wrapped(service)
    service.keys.erase(caller.stream("canary.person"))
    assert key in files()
    service.keys_database.forget_deleted()
    assert key not in files()


@on_sqlite
def test_what_was_deleted_is_overwritten_in_the_database_itself(service: Service, caller: Caller, files: Files):
    for number in range(500):  # pages are split and merged, and leave copies behind
        result(caller.service.ledger.enrol_user(f"canary.person.{number}", request()))
    for number in range(500):
        erase(caller, f"canary.person.{number}")
    assert b"canary.person" not in files()


@on_sqlite
def test_while_somebody_reads_it_is_not_done_and_says_so(
    service: Service, caller: Caller, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_MS", 300)
    sign_in(caller)
    key = wrapped(service)
    reader = sqlite3.connect(service.keys_database.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM user_keys").fetchall()
    with pytest.raises(StoreUnavailable, match="still in its WAL"):
        erase(caller)
    sign_in(caller, "bob")  # others are not held up
    reader.close()
    erase(caller)
    assert key not in files()
