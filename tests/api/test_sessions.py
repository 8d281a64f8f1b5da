"""A session begins as a sign-in service tells it, and its user ends it or his others."""

import base64
import re
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from store.api_keys import Scope
from tests.api.client import ADMIN, Api, bearer, by_cookie, same_but_request_id, told
from tests.api.conftest import OpenApi
from tests.clock import NOON

CHROME = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) "
    "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
)
DAY = 86_400


def at(seconds: float) -> str:
    """That many seconds after noon, as an answer writes it."""
    return (NOON + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


# -- beginning


def test_a_new_session_is_told_whole_with_its_token_and_cookie(api: Api):
    answer = api.begin(
        {
            "user_id": "alice",
            "ip_address": "203.0.113.7",
            "user_agent": CHROME,
            "idp_name": "google",
            "auth_time": "2026-11-23T11:59:00Z",
            "amr": ["pwd", "otp"],
        }
    )
    body = answer.json()
    session_id, token = body["session"].pop("id"), body["token"]
    assert answer.status_code == 201
    assert body == {
        "session": {
            "user_agent": CHROME,
            "device": "Chrome on macOS",
            "ip_address": "203.0.113.7",
            "created_at": at(0),
            "last_active_at": at(0),
            "expires_at": at(1800),
            "idp_name": "google",
            "remember_me": False,
            "is_current": False,
        },
        "token": token,
        "cookie": f"__Host-sid={token}; Path=/; Secure; HttpOnly; SameSite=Lax",
    }
    assert UUID(session_id).version == 4
    assert "Set-Cookie" not in answer.headers


def test_nothing_but_the_user_is_needed(api: Api):
    session = api.begin({"user_id": "alice"}).json()["session"]
    assert (session["ip_address"], session["user_agent"], session["idp_name"]) == (None, None, None)
    assert session["device"] == "Unknown device"


def test_a_token_is_43_characters_whose_first_byte_is_the_partition(api: Api):
    tokens = [api.sign_in().token for _ in range(50)]
    assert len(set(tokens)) == 50
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", token) for token in tokens)
    assert {base64.urlsafe_b64decode(token + "=")[0] for token in tokens} == {0}


def test_a_remembered_session_lives_longer_and_so_does_its_cookie(api: Api):
    alice = api.sign_in(remember_me=True)
    [session] = api.sessions(alice.bearer)
    assert alice.cookie == (
        f"__Host-sid={alice.token}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={30 * DAY}"
    )  # fmt: skip
    assert (session["remember_me"], session["expires_at"]) == (True, at(14 * DAY))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"cookie_samesite": "strict"}, "__Host-sid={}; Path=/; Secure; HttpOnly; SameSite=Strict"),
        ({"cookie_samesite": "none"}, "__Host-sid={}; Path=/; Secure; HttpOnly; SameSite=None"),
        ({"cookie_insecure": True}, "sid={}; Path=/; HttpOnly; SameSite=Lax"),
    ],
)
def test_the_cookie_is_as_the_settings_say(open_api: OpenApi, settings: dict[str, Any], line: str):
    alice = open_api(**settings).sign_in()
    assert alice.cookie == line.format(alice.token)


def test_the_insecure_cookie_is_the_one_that_is_read_then(open_api: OpenApi):
    api = open_api(cookie_insecure=True)
    alice = api.sign_in()
    assert api.is_active({"Cookie": f"sid={alice.token}"})
    assert not api.is_active({"Cookie": f"__Host-sid={alice.token}"})


def test_timeouts_are_the_settings_of_the_day_that_it_began(open_api: OpenApi, api: Api):
    alice = api.sign_in()
    later = open_api(idle_timeout=60, touch_interval=0)
    assert later.sessions(alice.bearer)[0]["expires_at"] == at(1800)
    assert later.begin({"user_id": "bob"}).json()["session"]["expires_at"] == at(60)


INVALID: list[tuple[dict[str, Any], str]] = [
    ({}, "/user_id"),
    ({"user_id": ""}, "/user_id"),
    ({"user_id": None}, "/user_id"),
    ({"user_id": 7}, "/user_id"),
    ({"user_id": "a" * 256}, "/user_id"),
    ({"user_id": "é" * 128}, "/user_id"),
    ({"user_id": "a\nb"}, "/user_id"),
    ({"user_id": "a\x7f"}, "/user_id"),
    ({"user_id": "alice", "ip_address": "localhost"}, "/ip_address"),
    ({"user_id": "alice", "ip_address": "203.0.113.7/32"}, "/ip_address"),
    ({"user_id": "alice", "ip_address": "203.0.113.7\n"}, "/ip_address"),
    ({"user_id": "alice", "ip_address": "fe80::1%\r\neth0"}, "/ip_address"),
    ({"user_id": "alice", "ip_address": 3405803783}, "/ip_address"),
    ({"user_id": "alice", "user_agent": "a" * 8193}, "/user_agent"),
    ({"user_id": "alice", "user_agent": []}, "/user_agent"),
    ({"user_id": "alice", "remember_me": "true"}, "/remember_me"),
    ({"user_id": "alice", "remember_me": 1}, "/remember_me"),
    ({"user_id": "alice", "idp_name": ""}, "/idp_name"),
    ({"user_id": "alice", "idp_name": "a\x1b[31m"}, "/idp_name"),
    ({"user_id": "alice", "auth_time": "yesterday"}, "/auth_time"),
    ({"user_id": "alice", "auth_time": "2026-11-23T10:00:00"}, "/auth_time"),
    ({"user_id": "alice", "auth_time": "0001-01-01T00:00:00+14:00"}, "/auth_time"),
    ({"user_id": "alice", "auth_time": "9999-12-31T23:59:59-14:00"}, "/auth_time"),
    ({"user_id": "alice", "auth_time": True}, "/auth_time"),
    ({"user_id": "alice", "auth_time": "1764000000"}, "/auth_time"),
    ({"user_id": "alice", "auth_time": "2025-11-24 16:00Z"}, "/auth_time"),
    ({"user_id": "alice", "auth_time": 1764000000000}, "/auth_time"),
    ({"user_id": "alice", "auth_time": -1e300}, "/auth_time"),
    ({"user_id": "alice", "amr": "pwd"}, "/amr"),
    ({"user_id": "alice", "amr": ["pwd"] * 17}, "/amr"),
    ({"user_id": "alice", "amr": ["pwd", ""]}, "/amr/1"),
    ({"user_id": "alice", "replaces": "not a token"}, "/replaces"),
    ({"user_id": "alice", "replaces": "a" * 43 + "\n"}, "/replaces"),
    ({"user_id": "alice", "is_admin": True}, "/is_admin"),
    ({"user_id": "alice", "token": "a" * 43}, "/token"),
]


def test_what_does_not_fit_is_named_and_nothing_is_recorded(api: Api):
    for body, pointer in INVALID:
        answer = api.begin(body)
        assert told(answer) == (422, "invalid-request"), body
        assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]
    assert api.begin({"user_id": ""}).json()["error"] == "/user_id: String should have at least 1 character"
    assert told(api.post("/api/sessions", ADMIN)) == (422, "invalid-request")
    assert told(api.post("/api/sessions", ADMIN, json=["alice"])) == (422, "invalid-request")
    assert api.log() == []


def test_the_limits_themselves_fit(api: Api):
    body = {"user_id": "é" * 127 + "a", "user_agent": "a" * 8192, "idp_name": "b" * 255, "amr": ["c" * 64] * 16}
    assert api.begin({**body, "auth_time": "0001-01-01T00:00:00Z", "ip_address": "2001:DB8::1"}).status_code == 201
    assert api.begin({**body, "auth_time": "2026-11-23T12:01:00Z"}).status_code == 201
    newest, oldest = api.get(f"/api/users/{body['user_id']}/sessions", ADMIN).json()["sessions"]
    assert (oldest["ip_address"], oldest["idp_name"]) == ("2001:db8::1", "b" * 255)
    assert len(newest["user_agent"].encode()) == 512


def test_somebody_never_heard_of_can_be_disabled_before_he_signs_in(api: Api):
    api.post("/api/users/alice/disable", ADMIN)
    assert told(api.begin({"user_id": "alice"})) == (403, "user-disabled")


# -- the cap


def test_one_session_above_the_cap_ends_the_least_recently_active(open_api: OpenApi):
    api = open_api(max_sessions_per_user=3)
    first, second, third = api.sign_in(), api.sign_in(), api.sign_in()
    api.clock.advance(60)
    assert api.is_active(first.bearer)
    fourth = api.sign_in()
    assert [api.is_active(s.bearer) for s in (first, second, third, fourth)] == [True, False, True, True]
    [ended] = api.sessions(first.bearer, "?status=ended")
    assert (ended["id"], ended["end_reason"], ended["ended_at"]) == (second.id, "session_limit", at(60))


# -- replacing


def test_a_new_session_takes_the_place_of_the_one_it_replaces(api: Api):
    old = api.sign_in()
    new = api.sign_in(replaces=old.token)
    assert not api.is_active(old.bearer)
    assert [(s["id"], s["is_current"]) for s in api.sessions(new.bearer)] == [(new.id, True)]
    [ended] = api.sessions(new.bearer, "?status=ended")
    assert (ended["id"], ended["end_reason"], ended["ended_by"]) == (old.id, "replaced", "key:bootstrap")


def test_replacing_a_session_that_has_ended_begins_one_all_the_same(api: Api):
    old = api.sign_in()
    api.delete(f"/api/sessions/{old.id}", old.bearer)
    new = api.sign_in(replaces=old.token)
    assert api.ids(new.bearer) == [new.id]
    assert [s["end_reason"] for s in api.sessions(new.bearer, "?status=ended")] == ["revoked_by_user"]


def test_a_session_of_somebody_else_or_of_nobody_is_not_replaced(api: Api):
    bob = api.sign_in("bob")
    for token in (bob.token, "A" * 43):
        assert told(api.begin({"user_id": "alice", "replaces": token})) == (422, "foreign-replacement")
    assert api.is_active(bob.bearer)
    assert api.get("/api/users/alice/sessions", ADMIN).json() == {"sessions": []}


# -- the same call again


def test_the_same_key_and_body_get_the_first_answer_again(api: Api):
    body = {
        "user_id": "alice",
        "ip_address": "203.0.113.7",
        "user_agent": CHROME,
        "auth_time": 1764000000,
        "amr": ["pwd"],
    }
    first = api.begin(body, **{"Idempotency-Key": "k 1"})
    api.clock.advance(600)
    again = api.begin(body, **{"Idempotency-Key": "k 1"})
    assert (again.status_code, again.content) == (201, first.content)
    assert (first.headers.get("Idempotency-Replayed"), again.headers["Idempotency-Replayed"]) == (None, "true")
    assert len(api.ids(bearer(first.json()["token"]))) == 1


def test_the_same_key_with_another_body_is_refused(api: Api):
    api.begin({"user_id": "alice"}, **{"Idempotency-Key": "k"})
    for body in ({"user_id": "bob"}, {"user_id": "alice", "remember_me": True}):
        assert told(api.begin(body, **{"Idempotency-Key": "k"})) == (422, "idempotency-key-reused")
    assert api.get("/api/users/bob/sessions", ADMIN).json() == {"sessions": []}


def test_the_key_of_a_session_that_has_ended_gives_no_token_out(api: Api):
    def again() -> tuple[int, str | None]:
        return told(api.begin({"user_id": "alice"}, **{"Idempotency-Key": "k"}))

    token = api.begin({"user_id": "alice"}, **{"Idempotency-Key": "k"}).json()["token"]
    api.post("/api/auth/signout", bearer(token))
    assert again() == (409, "idempotent-session-ended")
    api.clock.advance(DAY - 1)
    assert again() == (409, "idempotent-session-ended")
    api.clock.advance(1)
    assert again() == (201, None)


def test_neither_does_the_key_of_one_that_time_or_a_disable_has_ended(api: Api):
    for user_id in ("alice", "bob"):
        api.begin({"user_id": user_id}, **{"Idempotency-Key": user_id})
    api.post("/api/users/bob/disable", ADMIN)
    api.clock.advance(1800)
    for user_id in ("alice", "bob"):
        answer = api.begin({"user_id": user_id}, **{"Idempotency-Key": user_id})
        assert told(answer) == (409, "idempotent-session-ended")


def test_a_refused_sign_in_is_not_kept(api: Api):
    api.post("/api/users/alice/disable", ADMIN)
    assert api.begin({"user_id": "alice"}, **{"Idempotency-Key": "k"}).status_code == 403
    api.post("/api/users/alice/enable", ADMIN)
    assert api.begin({"user_id": "alice"}, **{"Idempotency-Key": "k"}).status_code == 201


def test_two_services_may_use_the_same_key(api: Api):
    services = [bearer(api.key(Scope.SESSIONS_CREATE)[1]) for _ in range(2)]
    answers = [
        api.post("/api/sessions", {**service, "Idempotency-Key": "k"}, json={"user_id": "alice"})
        for service in services
    ]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert len({answer.json()["token"] for answer in answers}) == 2


def test_a_key_replays_though_the_session_that_it_replaced_has_ended_by_it(api: Api):
    old = api.sign_in()
    body = {"user_id": "alice", "replaces": old.token}
    first = api.begin(body, **{"Idempotency-Key": "k"})
    again = api.begin(body, **{"Idempotency-Key": "k"})
    assert again.content == first.content


# -- ending one


def test_a_user_ends_another_of_his_sessions(api: Api):
    here, there = api.sign_in(), api.sign_in()
    answer = api.delete(f"/api/sessions/{there.id}", here.by_cookie)
    assert (answer.status_code, answer.json()) == (200, {"message": "Session revoked"})
    assert "Set-Cookie" not in answer.headers
    assert not api.is_active(there.bearer)
    assert api.ids(here.bearer) == [here.id]


def test_ending_it_again_is_answered_alike_and_records_nothing(api: Api):
    here, there = api.sign_in(), api.sign_in()
    first = api.delete(f"/api/sessions/{there.id}", here.bearer)
    before = api.log()
    again = api.delete(f"/api/sessions/{there.id.upper()}", here.bearer)
    assert same_but_request_id(again) == same_but_request_id(first)
    assert api.log() == before


def test_ending_the_current_one_clears_the_cookie(api: Api):
    alice = api.sign_in()
    answer = api.delete(f"/api/sessions/{alice.id}", alice.by_cookie)
    assert answer.json() == {"message": "Session revoked"}
    assert answer.headers["Set-Cookie"] == "__Host-sid=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"
    assert not api.is_active(alice.by_cookie)


def test_a_bearer_ends_its_own_session_without_a_cookie_to_clear(api: Api):
    alice = api.sign_in()
    assert "Set-Cookie" not in api.delete(f"/api/sessions/{alice.id}", alice.bearer).headers
    assert not api.is_active(alice.bearer)


def test_t_03_unknown_foreign_and_malformed_ids_are_the_same_404(api: Api):
    alice, bob = api.sign_in("alice"), api.sign_in("bob")
    ids = [
        bob.id,
        "6f1c7a52-93f4-4f0e-9d7b-0c6a7e1f2b3d",
        "x",
        alice.id.replace("-", ""),
        f"{{{alice.id}}}",
        alice.token,
    ]
    ids += ["%00", "%F0%9F%94%91", "a" * 2000]
    answers = [api.delete(f"/api/sessions/{session_id}", alice.bearer) for session_id in ids]
    assert {told(answer) for answer in answers} == {(404, "session-not-found")}
    assert len({str(same_but_request_id(answer)) for answer in answers}) == 1
    assert api.is_active(alice.bearer)
    assert api.is_active(bob.bearer)


def test_an_action_is_no_session(api: Api):
    alice = api.sign_in()
    answer = api.delete("/api/sessions/revoke-all", alice.bearer)
    assert (told(answer), answer.headers["Allow"]) == ((405, "method-not-allowed"), "POST")
    assert told(api.delete("/api/sessions/revoke-all-", alice.bearer)) == (404, "session-not-found")


def test_an_empty_id_never_means_all_the_others(api: Api):
    here, there = api.sign_in(), api.sign_in()
    assert told(api.delete("/api/sessions/", here.bearer)) == (404, "not-found")
    assert told(api.delete("/api/users/alice/sessions/", ADMIN)) == (404, "not-found")
    assert api.is_active(there.bearer)


# -- ending many


def test_revoke_all_ends_every_session_the_current_one_too(api: Api):
    mine, bob = [api.sign_in() for _ in range(3)], api.sign_in("bob")
    answer = api.post("/api/sessions/revoke-all", mine[0].by_cookie)
    assert (answer.status_code, answer.json()) == (200, {"revoked_count": 3})
    assert answer.headers["Set-Cookie"] == "__Host-sid=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"
    assert not any(api.is_active(s.bearer) for s in mine)
    assert api.is_active(bob.bearer)


def test_revoke_all_spares_nothing_unless_it_is_told_to(api: Api):
    for body in (b"", b"null", b"{}", b'{"except_current":false}'):
        alice = api.sign_in()
        answer = api.post(
            "/api/sessions/revoke-all", {**alice.bearer, "Content-Type": "application/json"}, content=body
        )
        assert answer.json() == {"revoked_count": 1}, body
        assert not api.is_active(alice.bearer)


def test_revoke_all_but_the_current_one(api: Api):
    here, there = api.sign_in(), api.sign_in()
    for expected in (1, 0):
        answer = api.post("/api/sessions/revoke-all", here.by_cookie, json={"except_current": True})
        assert (answer.status_code, answer.json()) == (200, {"revoked_count": expected})
        assert "Set-Cookie" not in answer.headers
    assert [api.is_active(s.bearer) for s in (here, there)] == [True, False]


def test_revoke_all_counts_only_what_it_ended(api: Api):
    alice, dead = api.sign_in(remember_me=True), api.sign_in(remember_me=True)
    api.sign_in()  # ended by time below
    api.delete(f"/api/sessions/{dead.id}", alice.bearer)
    api.clock.advance(1800)
    assert api.post("/api/sessions/revoke-all", alice.bearer).json() == {"revoked_count": 1}


def test_a_wish_that_is_not_understood_ends_nothing(api: Api):
    alice = api.sign_in()
    for body in ({"except_current": "true"}, {"except_current": None}, {"scope": "others"}, [], "x"):
        assert told(api.post("/api/sessions/revoke-all", alice.bearer, json=body)) == (422, "invalid-request"), body
    text = {**alice.bearer, "Content-Type": "text/plain"}
    assert told(api.post("/api/sessions/revoke-all", text, content=b'{"except_current":true}'))[0] == 415
    assert api.is_active(alice.bearer)


def test_delete_ends_all_but_the_current_one(api: Api):
    here, there = api.sign_in(), api.sign_in()
    answer = api.delete("/api/sessions", by_cookie(here.token))
    assert (answer.status_code, answer.json()) == (200, {"message": "Other sessions revoked", "revoked_count": 1})
    assert "Set-Cookie" not in answer.headers
    assert [api.is_active(s.bearer) for s in (here, there)] == [True, False]
    assert api.sessions(here.bearer, "?status=ended")[0]["end_reason"] == "revoke_all"


@pytest.mark.parametrize(("seconds", "status"), [(60, 201), (61, 422)])
def test_an_authentication_in_the_future_is_refused(api: Api, seconds: int, status: int):
    auth_time = (NOON + timedelta(seconds=seconds)).isoformat()
    assert api.begin({"user_id": "alice", "auth_time": auth_time}).status_code == status
