"""Forgetting a person over HTTP: what is refused from then on, what is left of him, and what no slip can do."""

import io
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from store.api_keys import Scope
from store.keys import user_keys
from store.log import last_position, leaf, pages
from store.merkle import Subtrees, check_inclusion, complete_root, inclusion_proof, leaf_hash, root
from tests.api.client import ADMIN, Api, SignedIn, access_token, bearer, settled, told, until
from tests.api.conftest import OpenApi
from tests.api.test_leaks import IP, SIGN_IN, USER_AGENT, USER_ID, cells, live_a_life, whole_files
from tests.postgres import Database
from tests.store.given import topics

CANARIES = (USER_ID, IP, USER_AGENT, "CanaryBrowser")
ERASED = (403, "user-erased")


def erase(api: Api, user_id: str = "alice") -> None:
    answer = api.delete(f"/api/users/{user_id}", ADMIN)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"message": "User erased", "user_id": user_id, "erased": True}


# -- from the commit on


def test_nothing_of_an_erased_user_is_valid(api: Api):
    alice, bob = api.sign_in(), api.sign_in("bob")
    erase(api)
    for way_in, headers in alice.ways_in.items():
        assert (way_in, told(api.get("/api/auth/session", headers))) == (way_in, (401, "invalid-credential"))
    for query in ("", "?status=all", "?status=ended"):
        assert api.get(f"/api/users/alice/sessions{query}", ADMIN).json()["sessions"] == []
    assert api.is_active(bob.bearer)


def test_an_erased_user_may_not_sign_in_nor_be_disabled_or_enabled(api: Api):
    api.sign_in()
    erase(api)
    before = api.log()
    assert told(api.begin({"user_id": "alice"})) == ERASED
    for change in ("disable", "enable"):
        assert told(api.post(f"/api/users/alice/{change}", ADMIN)) == ERASED
    assert api.delete("/api/users/alice/sessions", ADMIN).json()["revoked_count"] == 0
    assert api.log() == before


def test_a_sign_in_that_is_repeated_by_its_key_is_refused_too(api: Api):
    body, key = {"user_id": "alice"}, {"Idempotency-Key": "k"}
    assert api.begin(body, **key).status_code == 201
    erase(api)
    assert told(api.begin(body, **key)) == ERASED


def test_erasing_again_is_answered_alike_and_records_nothing(api: Api):
    api.sign_in()
    erase(api)
    before = api.log()
    erase(api)
    assert api.log() == before


def test_a_user_who_was_never_heard_of_is_refused_from_then_on(api: Api):
    erase(api, "stranger")
    assert told(api.begin({"user_id": "stranger"})) == ERASED
    assert topics(api.service, "stranger") == ["UserEnrolled", "UserErased"]


def test_an_erased_client_may_not_act_for_he_could_not_be_named(api: Api):
    client = bearer(access_token(sub="console", client_id="console", scope="users:admin"))
    assert api.post("/api/users/bob/disable", client).status_code == 200
    erase(api, "console")
    assert told(api.post("/api/users/bob/enable", client)) == ERASED


# -- it is done when it is answered


def test_the_key_is_a_tombstone_when_it_is_answered(api: Api):
    api.sign_in(ip_address="198.51.100.213")
    erase(api)
    with api.service.keys_database.reading() as connection:
        keys = connection.execute(user_keys.select()).all()
    assert keys == [(api.service.keys.pseudonym("alice"), None)]


# -- slips


@pytest.mark.parametrize(
    "path",
    [
        "/api/users",
        "/api/users/",
        "/api/users/alice/",
        "/api/users/alice/sessions/",
        "/api/users/alice/sessions//",
        "/api/users/alice/sessions%20",
        "/api/users/alice/sessions?dry_run=true",
        "/api/users/alice?dry_run=true",
        "/api/users/alice%2Fx/",
        "/api/users/alice%2Fsessions",
        "/api/users/alice%2Fsessions%2Fx",
        "/api/users/alice/sessions/a/b",
        "/api/users/alice/Sessions",
        "/api/users/alice/disable",
        "/api/users//",
    ],
)
def test_no_slip_in_another_calls_path_erases_anybody(shared_api: Api, path: str):
    shared_api.sign_in()
    before = shared_api.log()
    assert shared_api.delete(path, ADMIN).status_code in (404, 405, 422)
    assert shared_api.log() == before


def test_ending_sessions_is_not_erasing(api: Api):
    alice = api.sign_in()
    assert api.delete("/api/users/alice/sessions", ADMIN).json()["revoked_count"] == 1
    assert told(api.delete(f"/api/users/alice/sessions/{alice.id}", ADMIN)) == (200, None)
    assert "UserErased" not in topics(api.service)


@pytest.mark.parametrize("user_id", ["idp/alice", "https://idp.example/people/7", "a/sessions-team", "/alice"])
def test_a_slash_in_an_id_comes_encoded(api: Api, user_id: str):
    api.sign_in(user_id)
    assert told(api.delete(f"/api/users/{user_id}", ADMIN)) == (404, "not-found")
    answer = api.delete(f"/api/users/{quote(user_id, safe='')}", ADMIN)
    assert answer.json() == {"message": "User erased", "user_id": user_id, "erased": True}
    assert topics(api.service, user_id)[-2:] == ["UserErased", "SessionRevoked"]


# -- what stays, and what does not


def leaves(api: Api) -> list[bytes]:
    with api.service.database.reading() as connection:
        return [leaf(record) for page in pages(connection, 0, last_position(connection)) for record in page]


def test_every_event_stays_as_it_was_and_so_do_roots_and_proofs(api: Api):
    live_a_life(api)
    before = leaves(api)
    size, known = len(before), root(tree(before), len(before))
    proof = inclusion_proof(tree(before), 0, size)
    erase(api, USER_ID)
    after = leaves(api)
    assert after[:size] == before
    assert root(tree(after), size) == known
    check_inclusion(leaf_hash(after[0]), 0, size, proof, known)


def tree(leaves: list[bytes]) -> Subtrees:
    hashes = [*map(leaf_hash, leaves)]
    return lambda level, number: complete_root(hashes[number << level : (number + 1) << level])


def test_the_person_is_in_no_table_no_file_and_no_line_of_the_log(
    open_api: OpenApi, database: Database, tmp_path: Path, log: io.StringIO
):
    api = open_api()
    live_a_life(api)
    until(lambda: any(table.startswith("snapshots") for table, _ in cells(database.url)))
    erase(api, USER_ID)
    settled(api)
    kept = b"\0".join(value for url in (database.url, database.keys_url) for _, value in cells(url))
    everything = kept + whole_files(tmp_path) + log.getvalue().encode()
    assert [canary for canary in CANARIES if canary.encode() in everything] == []


def test_no_call_tells_of_the_person_any_more(api: Api):
    live_a_life(api)
    alice = api.sign_in(USER_ID, **SIGN_IN)
    assert any(canary in answer for canary in CANARIES for answer in told_by_every_get(api, alice))
    erase(api, USER_ID)
    answers = told_by_every_get(api, alice)
    assert len(answers) > 10
    assert [canary for canary in CANARIES if any(canary in answer for answer in answers)] == []


def told_by_every_get(api: Api, alice: SignedIn) -> list[str]:
    """What each call that reads says to whoever may read everything, and to the person himself."""
    _, key = api.key(*Scope)
    paths = [path for method, path in api.operations() if method == "GET" and "stream" not in path]
    queries = ("", "?status=all", "?as_of=2026-11-23T12:00:00Z", f"?user_id={USER_ID}")
    asked = [
        path.format(user_id=USER_ID, session_id=alice.id, event_id=event_id) + query
        for path in paths
        for query in queries
        for event_id in (events_of(api, USER_ID) if "{event_id}" in path else [""])
    ]
    return [api.get(path, headers).text for path in asked for headers in (bearer(key), alice.bearer)]


def events_of(api: Api, user_id: str) -> list[str]:
    """The first and the last two that hold something of him."""
    stream = api.service.keys.pseudonym(user_id)
    facts: list[Any] = [*map(api.service.mapper.to_domain_event, api.service.recorder.select_events(stream))]
    personal = [str(fact.event_id) for fact in facts if fact.TOPIC in ("UserEnrolled", "SessionCreated")]
    return [personal[0], *personal[-2:]]
