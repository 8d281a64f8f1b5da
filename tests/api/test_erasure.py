"""Forgetting a person over HTTP: what is refused from then on, what is left of him, and what no slip can do."""

import pytest

from store.keys import user_keys
from tests.api.client import ADMIN, Api, access_token, bearer, told
from tests.store.given import topics

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
        "/api/users/alice/sessions/a/b",
        "/api/users/alice/Sessions",
        "/api/users/alice/disable",
        "/api/users/alice/audit",
        "/api/users/sessions",
        "/api/users//",
    ],
)
def test_no_slip_in_another_calls_path_erases_anybody(api: Api, path: str):
    api.sign_in()
    before = api.log()
    assert api.delete(path, ADMIN).status_code in (404, 405)
    assert api.log() == before


def test_ending_sessions_is_not_erasing(api: Api):
    alice = api.sign_in()
    assert api.delete("/api/users/alice/sessions", ADMIN).json()["revoked_count"] == 1
    assert told(api.delete(f"/api/users/alice/sessions/{alice.id}", ADMIN)) == (200, None)
    assert "UserErased" not in topics(api.service)


@pytest.mark.parametrize("user_id", ["idp/alice", "https://idp.example/people/7", "my sessions", "a/sessions-team"])
def test_an_id_with_a_slash_is_erased_like_any_other(api: Api, user_id: str):
    api.sign_in(user_id)
    erase(api, user_id)
    assert topics(api.service, user_id)[-2:] == ["UserErased", "SessionRevoked"]
