"""What an administrator does to a user."""

from uuid import uuid4

import pytest

from store.api_keys import Scope
from tests.api.client import ADMIN, Api, access_token, bearer, same_but_request_id, told, until
from tests.clock import NOON

STRANGE = {
    "a slash": ("tenant/alice", "tenant/alice"),
    "a slash, escaped": ("tenant%2Falice", "tenant/alice"),
    "the words of a route": ("x/sessions", "x/sessions"),
    "all words of a route": ("x/sessions/y/disable", "x/sessions/y/disable"),
    "a per cent sign": ("100%25", "100%"),
    "an escape, escaped": ("a%252Fb", "a%2Fb"),
    "unicode": ("%C3%BCn%C3%AF%F0%9F%94%91", "ünï🔑"),
    "what a URL is made of": ("%3Fa=b%26c%23d;e:f@g%20h+i", "?a=b&c#d;e:f@g h+i"),
    "dots": ("..%2F..", "../.."),
    "the longest": ("a" * 255, "a" * 255),
}


# -- disabling


def test_a_disabled_user_has_no_session_from_the_answer_on_though_no_policy_acts(api: Api):
    api.service.follower.close()
    alice, there, bob = api.sign_in(), api.sign_in(), api.sign_in("bob")
    answer = api.post("/api/users/alice/disable", ADMIN)
    assert answer.status_code == 200
    assert answer.json() == {"message": "User disabled", "user_id": "alice", "disabled": True}
    for headers in (there.bearer, *alice.ways_in.values()):
        assert told(api.get("/api/auth/session", headers)) == (401, "invalid-credential")
    assert api.get("/api/users/alice/sessions", ADMIN).json() == {"sessions": []}
    assert api.is_active(bob.bearer)


def test_the_policy_then_records_the_end_of_each_session(api: Api):
    ids = {api.sign_in().id, api.sign_in().id}
    api.clock.advance(5)
    api.post("/api/users/alice/disable", ADMIN)
    until(lambda: [topic for topic, _ in api.log()].count("SessionRevoked") == 2)
    listed = api.get("/api/users/alice/sessions?status=ended", ADMIN).json()["sessions"]
    assert {session["id"] for session in listed} == ids
    assert {(s["ended_at"], s["end_reason"], s["ended_by"]) for s in listed} == {
        ("2026-11-23T12:00:05Z", "user_disabled", "policy:revoke-sessions-on-user-disabled")
    }


def test_the_end_is_shown_alike_before_the_policy_acts(api: Api):
    api.service.follower.close()
    api.sign_in()
    api.post("/api/users/alice/disable", ADMIN)
    path = "/api/users/alice/sessions?status=all"
    before = api.get(path, ADMIN).json()
    api.clock.advance(3600)
    api.post("/api/users/alice/enable", ADMIN)
    assert api.get(path, ADMIN).json() == before
    assert before["sessions"][0]["end_reason"] == "user_disabled"


def test_enabling_lets_the_user_sign_in_again_and_revives_nothing(api: Api):
    api.service.follower.close()
    old = api.sign_in()
    api.post("/api/users/alice/disable", ADMIN)
    answer = api.post("/api/users/alice/enable", ADMIN)
    assert answer.json() == {"message": "User enabled", "user_id": "alice", "disabled": False}
    new = api.sign_in()
    assert [api.is_active(s.bearer) for s in (old, new)] == [False, True]
    assert api.ids(new.bearer) == [new.id]


@pytest.mark.parametrize("verb", ["disable", "enable"])
def test_what_is_so_already_is_answered_alike_and_recorded_once(api: Api, verb: str):
    api.sign_in()
    api.post("/api/users/alice/disable", ADMIN)
    until(lambda: "SessionRevoked" in [topic for topic, _ in api.log()])
    first = api.post(f"/api/users/alice/{verb}", ADMIN)
    before = api.log()
    again = api.post(f"/api/users/alice/{verb}", ADMIN)
    assert same_but_request_id(again) == same_but_request_id(first)
    assert api.log() == before


def test_disabling_somebody_never_heard_of_enrols_him(api: Api):
    assert api.post("/api/users/alice/disable", ADMIN).json()["disabled"] is True
    assert api.log() == [("UserEnrolled", "key:bootstrap"), ("UserDisabled", "key:bootstrap")]


def test_enabling_somebody_never_heard_of_records_nothing(api: Api):
    answer = api.post("/api/users/alice/enable", ADMIN)
    assert (answer.status_code, answer.json()["disabled"]) == (200, False)
    assert api.log() == []


def test_a_sign_in_that_races_a_disable_leaves_no_active_session(api: Api):
    alice = api.sign_in()
    calls = [("POST", "/api/users/alice/disable", ADMIN)]
    calls += [("POST", "/api/sessions/revoke-all", alice.bearer), ("DELETE", "/api/sessions", alice.bearer)]
    answers = api.at_once(calls)
    assert answers[0].status_code == 200
    assert {answer.status_code for answer in answers} <= {200, 401}
    assert api.get("/api/users/alice/sessions", ADMIN).json() == {"sessions": []}
    assert told(api.begin({"user_id": "alice"})) == (403, "user-disabled")


# -- a user's sessions


def test_an_unknown_user_has_no_sessions(api: Api):
    assert api.get("/api/users/nobody/sessions", ADMIN).json() == {"sessions": []}
    assert api.get("/api/users/nobody/sessions?status=all", ADMIN).json() == {"sessions": []}
    answer = api.delete("/api/users/nobody/sessions", ADMIN)
    assert answer.json() == {"message": "Sessions revoked", "revoked_count": 0}
    assert told(api.delete(f"/api/users/nobody/sessions/{uuid4()}", ADMIN)) == (404, "session-not-found")
    assert api.log() == []


def test_an_administrator_sees_what_the_user_sees(api: Api):
    alice = api.sign_in(ip_address="203.0.113.7", user_agent="curl/8.5.0")
    by_user = [{**session, "is_current": False} for session in api.sessions(alice.bearer)]
    assert api.get("/api/users/alice/sessions", ADMIN).json() == {"sessions": by_user}


def test_an_administrator_ends_all_sessions_of_one_user(api: Api):
    alice, there, bob = api.sign_in(), api.sign_in(), api.sign_in("bob")
    answer = api.delete("/api/users/alice/sessions", ADMIN)
    assert (answer.status_code, answer.json()) == (200, {"message": "Sessions revoked", "revoked_count": 2})
    assert [api.is_active(s.bearer) for s in (alice, there, bob)] == [False, False, True]
    new = api.sign_in()
    assert {s["end_reason"] for s in api.sessions(new.bearer, "?status=ended")} == {"revoked_by_admin"}


def test_an_administrator_ends_one_session(api: Api):
    alice, there = api.sign_in(), api.sign_in()
    for _ in range(2):
        answer = api.delete(f"/api/users/alice/sessions/{there.id}", ADMIN)
        assert (answer.status_code, answer.json()) == (200, {"message": "Session revoked"})
    assert [api.is_active(s.bearer) for s in (alice, there)] == [True, False]


def test_t_03_a_session_is_found_under_its_own_user_only(api: Api):
    alice, bob = api.sign_in("alice"), api.sign_in("bob")
    ids = [bob.id, str(uuid4()), "x", "%00", bob.id.replace("-", "")]
    answers = [api.delete(f"/api/users/alice/sessions/{session_id}", ADMIN) for session_id in ids]
    assert {told(answer) for answer in answers} == {(404, "session-not-found")}
    assert len({str(same_but_request_id(answer)) for answer in answers}) == 1
    assert [api.is_active(s.bearer) for s in (alice, bob)] == [True, True]


# -- user ids


def test_any_user_id_can_be_told_in_a_path(api: Api):
    for name, (path, user_id) in STRANGE.items():
        here, there = api.sign_in(user_id), api.sign_in(user_id)
        listed = api.get(f"/api/users/{path}/sessions", ADMIN).json()["sessions"]
        assert [session["id"] for session in listed] == [there.id, here.id], name
        assert api.delete(f"/api/users/{path}/sessions/{there.id}", ADMIN).status_code == 200, name
        assert api.delete(f"/api/users/{path}/sessions", ADMIN).json()["revoked_count"] == 1, name
        assert api.post(f"/api/users/{path}/disable", ADMIN).json()["user_id"] == user_id
        assert told(api.begin({"user_id": user_id})) == (403, "user-disabled"), name
        assert api.post(f"/api/users/{path}/enable", ADMIN).json()["user_id"] == user_id


def test_user_ids_are_told_apart_to_the_byte(api: Api):
    alike = ["alice", "Alice", "alice ", " alice", "alice/", "/alice", "alıce", "alice\u3000", "é", "e\u0301"]
    people = [api.sign_in(user_id) for user_id in alike]
    for number, user_id in enumerate(alike):
        assert api.get("/api/auth/session", people[number].bearer).json()["user_id"] == user_id
        path = "".join(f"%{byte:02X}" for byte in user_id.encode())
        assert api.post(f"/api/users/{path}/disable", ADMIN).json()["user_id"] == user_id
        active = [api.is_active(person.bearer) for person in people]
        assert active == [False] * (number + 1) + [True] * (len(people) - number - 1)


def test_an_id_that_nobody_can_have_is_refused(api: Api):
    for path in ("", "%00", "a%09b", "a%0Ab", "%0A", "a%7F", "a" * 256, "%C3%A9" * 128):
        for method, end in (("POST", "disable"), ("POST", "enable"), ("GET", "sessions"), ("DELETE", "sessions")):
            answer = api.request(method, f"/api/users/{path}/{end}", ADMIN)
            assert told(answer) == (422, "invalid-request"), (path, method)
            assert answer.json()["errors"][0]["parameter"] == "user_id"
    assert api.log() == []


# -- who did it


def test_the_log_names_the_key_that_acted(api: Api):
    key, secret = api.key(Scope.USERS_ADMIN)
    api.sign_in()
    api.delete("/api/users/alice/sessions", bearer(secret))
    assert api.log()[-1] == ("SessionRevoked", f"key:{key.key_id}")


def test_an_administrator_by_access_token_is_named_by_his_pseudonym(api: Api):
    root = api.sign_in("root")
    stream = api.service.keys.pseudonym("root")
    api.post("/api/users/alice/disable", bearer(root.access_token(scope="users:admin")))
    assert api.log()[-2:] == [("UserEnrolled", f"user:{stream}"), ("UserDisabled", f"user:{stream}")]


def test_a_client_of_its_own_is_enrolled_before_it_acts(api: Api):
    stream = api.service.keys.pseudonym("web")
    for _ in range(2):
        api.post("/api/users/alice/disable", bearer(access_token(sub="web", scope="users:admin")))
    assert api.log() == [
        ("UserEnrolled", f"user:{stream}"),
        ("UserEnrolled", f"user:{stream}"),
        ("UserDisabled", f"user:{stream}"),
    ]


def test_an_administrator_disables_himself_and_is_out(api: Api):
    root = api.sign_in("root")
    by_token = bearer(root.access_token(scope="users:admin", exp=NOON.timestamp() + 60))
    assert api.post("/api/users/root/disable", by_token).status_code == 200
    assert told(api.post("/api/users/root/enable", by_token)) == (401, "invalid-credential")
