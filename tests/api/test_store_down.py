"""The store cannot be reached or cannot write: every answer says so, nothing pretends, and it passes by itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
from sqlalchemy import event, text

from store.database import Database
from tests.api.client import ADMIN, Api, Headers, bearer, told, until
from tests.api.conftest import OpenApi
from tests.api.corpus import ended
from tests.api.test_credentials import OF_USERS, send
from tests.postgres import PostgresCluster

ON_POSTGRESQL = pytest.mark.parametrize("database", ["postgresql"], indirect=True)  # a file does not go away
ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # which can be told not to grow


@contextmanager
def down(cluster: PostgresCluster) -> Iterator[None]:
    cluster.stop(mode="immediate")
    try:
        yield
    finally:
        cluster.start()


@contextmanager
def disk_full(api: Api) -> Iterator[None]:
    """SQLite may not grow its file any more."""
    database = api.service.database
    with database.reading() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()

    def no_more_pages(connection: Any, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    event.listen(database._writer, "connect", no_more_pages)
    database.discard_connections()
    yield
    event.remove(database._writer, "connect", no_more_pages)
    database.discard_connections()


def every_call(api: Api, session_id: str, credentials: list[Headers]) -> list[tuple[str, str, Headers]]:
    paths = [
        (m, path.format(user_id="alice", session_id=session_id, event_id=session_id)) for m, path in api.operations()
    ]
    return [(method, path, headers) for method, path in paths for headers in credentials]


@ON_POSTGRESQL
def test_t_26_while_the_store_is_down_every_route_says_so_and_then_works_again(
    api: Api, postgres_cluster: PostgresCluster
):
    alice = api.sign_in()
    credentials = [alice.by_cookie, alice.bearer, bearer(alice.access_token(scope="users:admin")), ADMIN]
    calls = every_call(api, alice.id, credentials)
    assert api.get("/readyz").status_code == 200
    with down(postgres_cluster):
        answers = dict(zip([(m, path, str(h)) for m, path, h in calls], api.at_once(calls), strict=True))
        assert api.begin({"user_id": "bob"}).status_code == 503
        assert "ledger_store_up 0.0" in api.get("/metrics").text
    for (method, path, credential), answer in answers.items():
        if answer.status_code == 503:
            assert told(answer) == (503, "store-unavailable")
            assert answer.headers["Retry-After"] == "2"
            assert "Set-Cookie" not in answer.headers
        elif credential != str(ADMIN):
            assert (path in ("/healthz", "/metrics"), answer.status_code) == (True, 200), (method, path)
    by_key = {(m, path): told(answer) for (m, path, credential), answer in answers.items() if credential == str(ADMIN)}
    assert {told_then for call, told_then in by_key.items() if call[1].startswith("/api/users/")} == {
        (503, "store-unavailable")
    }
    assert by_key["POST", "/api/auth/signout"] == (204, None)
    assert {answer for answer in by_key.values() if answer[0] not in (503, 200, 204)} == {
        (403, "insufficient-scope"),
        (422, "invalid-request"),
        (415, "unsupported-media-type"),
    }
    until(lambda: api.get("/readyz").status_code == 200)
    assert api.is_active(alice.by_cookie)
    until(lambda: api.begin({"user_id": "bob"}).status_code == 201)
    assert api.post("/api/auth/signout", alice.by_cookie).status_code == 204


@ON_POSTGRESQL
def test_a_restart_of_the_store_between_two_requests_is_no_error_of_ours(api: Api, postgres_cluster: PostgresCluster):
    alice = api.sign_in()
    calls = [call for call in every_call(api, alice.id, [alice.bearer, ADMIN]) if call[0] == "GET"]
    before = [answer.status_code for answer in api.at_once(calls)]
    for call in calls:
        with down(postgres_cluster):
            pass
        assert api.request(*call).status_code in (503, before[calls.index(call)]), call
    until(lambda: [answer.status_code for answer in api.at_once(calls)] == before)


@ON_SQLITE
def test_a_sign_out_that_is_not_durable_keeps_the_cookie(api: Api):
    people = [api.sign_in(f"user-{number}") for number in range(100)]
    with disk_full(api):
        answers = ((person, api.post("/api/auth/signout", person.by_cookie)) for person in people)
        person, answer = next((person, answer) for person, answer in answers if answer.status_code != 204)
        assert told(answer) == (503, "store-unavailable")
        assert answer.headers["Retry-After"] == "2"
        assert {"Set-Cookie", "Clear-Site-Data"}.isdisjoint(answer.headers)
        assert api.is_active(person.by_cookie)
    assert api.post("/api/auth/signout", person.by_cookie).status_code == 204
    assert not api.is_active(person.by_cookie)


def test_a_store_that_has_lost_a_table_refuses_what_needs_it_and_goes_on(api: Api):
    with lost(api.service.keys_database, "user_keys"):
        assert told(api.begin({"user_id": "alice"})) == (503, "store-unavailable")
    assert api.begin({"user_id": "alice"}).status_code == 201


@pytest.mark.parametrize("table", ["sessions", "users", "identities", "user_keys"])
def test_t_26_a_store_that_has_lost_a_table_lets_nobody_in(api: Api, table: str):
    alice, dead = api.sign_in(ip_address="203.0.113.7"), ended(api)
    live = [alice.by_cookie, alice.bearer, bearer(alice.access_token(scope="users:admin"))]
    of_the_log = table != "user_keys"
    with lost(api.service.database if of_the_log else api.service.keys_database, table):
        for call in OF_USERS if of_the_log else [("GET", "/api/auth/session")]:
            for headers in [*live, *([dead.bearer] if of_the_log else [])]:
                assert told(send(api, call, headers, alice.id)) == (503, "store-unavailable"), call
        assert told(api.get("/api/auth/session", dead.bearer))[0] == (503 if of_the_log else 401)
    assert [api.is_active(headers) for headers in [*live, dead.bearer]] == [True, True, True, False]


@contextmanager
def lost(database: Database, table: str) -> Iterator[None]:
    with database.transaction() as connection:
        connection.execute(text(f"ALTER TABLE {table} RENAME TO elsewhere"))
    yield
    with database.transaction() as connection:
        connection.execute(text(f"ALTER TABLE elsewhere RENAME TO {table}"))


def test_a_lock_that_somebody_holds_is_a_503_and_passes(open_api: OpenApi, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("store.database.BUSY_TIMEOUT_MS", 200)
    api = open_api()
    alice = api.sign_in()
    with api.service.recorder.appending():
        assert api.is_active(alice.bearer)
        answer = api.post("/api/auth/signout", alice.by_cookie)
        assert told(answer) == (503, "store-unavailable")
        assert "Set-Cookie" not in answer.headers
        assert answer.headers["Retry-After"]
    assert api.post("/api/auth/signout", alice.by_cookie).status_code == 204


@ON_POSTGRESQL
def test_a_server_that_has_stopped_answering_is_a_503(api: Api, postgres_cluster, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("store.reads.PATIENCE_S", 0.3)
    monkeypatch.setattr("store.workers.PATIENCE_S", 0.3)
    alice = api.sign_in()
    with frozen(postgres_cluster):
        for path in ("/readyz", "/metrics", "/api/audit", "/api/audit/export?format=ndjson", "/api/ledger/checkpoint"):
            assert told(api.get(path, ADMIN)) == (503, "store-unavailable"), path
        assert api.get("/api/auth/session", alice.bearer).status_code == 503
    until(lambda: api.is_active(alice.bearer))


@ON_POSTGRESQL
def test_a_standby_answers_no_check(api: Api, postgres_cluster: PostgresCluster):
    alice = api.sign_in()
    with postgres_cluster.as_standby():
        assert told(api.get("/api/auth/session", alice.bearer)) == (503, "store-unavailable")
    until(lambda: api.is_active(alice.bearer))


@contextmanager
def frozen(cluster: PostgresCluster) -> Iterator[None]:
    """Every process of the server is stopped, which no connection notices."""
    postmaster = psutil.Process(cluster._server.get_postmaster_info().process.pid)
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()
