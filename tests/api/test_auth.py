"""The check that every request of every client makes, and signing out."""

import pytest

from api.ids import new_uuid7
from domain.ledger import Request
from tests.api.client import ADMIN, Api, SignedIn, access_token, bearer, by_cookie, told, until
from tests.api.conftest import OpenApi

CLEARED = "__Host-sid=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"
CLEAR_SITE_DATA = '"cache", "cookies", "storage"'
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
REQUEST = Request("key:test", new_uuid7())


# -- the check


def test_the_check_tells_the_session_its_user_and_how_exact_its_times_are(api: Api):
    alice = api.sign_in(ip_address="203.0.113.7", user_agent="curl/8.5.0", idp_name="google", remember_me=True)
    answer = api.get("/api/auth/session", alice.by_cookie)
    assert answer.status_code == 200
    assert answer.json() == {
        "session": {
            "id": alice.id,
            "user_agent": "curl/8.5.0",
            "device": "curl",
            "ip_address": "203.0.113.7",
            "created_at": "2026-11-23T12:00:00Z",
            "last_active_at": "2026-11-23T12:00:00Z",
            "expires_at": "2026-12-07T12:00:00Z",
            "idp_name": "google",
            "remember_me": True,
            "is_current": True,
        },
        "user_id": "alice",
        "touch_precision_seconds": 60,
    }
    assert answer.headers["Cache-Control"] == "no-store"


def test_it_is_the_same_by_cookie_session_token_and_access_token(api: Api):
    alice = api.sign_in()
    answers = [api.get("/api/auth/session", headers) for headers in alice.ways_in.values()]
    assert len({answer.content for answer in answers}) == 1


def test_an_idle_session_is_active_until_its_last_microsecond(api: Api):
    alice = api.sign_in()
    api.clock.advance(1800 - 0.000_001)
    api.service.writer.close()  # so that no touch comes in between
    assert api.is_active(alice.bearer)
    api.clock.advance(0.000_001)
    assert not api.is_active(alice.bearer)


def test_activity_never_carries_a_session_over_its_absolute_limit(open_api: OpenApi):
    api = open_api(absolute_timeout=3600, touch_interval=0)
    alice = api.sign_in()
    for _ in range(3):
        api.clock.advance(1199)
        assert api.is_active(alice.bearer)
        until(lambda: api.sessions(alice.bearer)[0]["last_active_at"] >= f"{api.clock.now():%FT%T}")
    assert api.sessions(alice.bearer)[0]["expires_at"] == "2026-11-23T13:00:00Z"
    api.clock.advance(3)
    assert not api.is_active(alice.bearer)


# -- touches


def last_active_at(api: Api, alice: SignedIn) -> str:
    """As an administrator sees it, which touches nothing."""
    listed = api.get(f"/api/users/{alice.user_id}/sessions", ADMIN).json()["sessions"]
    return next(session["last_active_at"] for session in listed if session["id"] == alice.id)


@pytest.mark.parametrize("way", ["cookie", "token", "access token"])
def test_a_use_after_the_interval_moves_the_last_activity(api: Api, way: str):
    alice = api.sign_in()
    api.clock.advance(59)
    assert api.is_active(alice.ways_in[way])
    api.clock.advance(1)
    assert api.is_active(alice.ways_in[way])
    until(lambda: last_active_at(api, alice) == "2026-11-23T12:01:00Z")
    assert [topic for topic, _ in api.log()] == ["UserEnrolled", "SessionCreated", "SessionTouched"]
    assert api.log()[-1] == ("SessionTouched", "self")


def test_every_route_of_a_user_counts_as_a_use(api: Api):
    for method, path in (("GET", "/api/sessions"), ("DELETE", "/api/sessions"), ("DELETE", "/api/sessions/x")):
        alice = api.sign_in(f"{method} {path}".replace("/", " "))
        api.clock.advance(60)
        api.request(method, path, alice.bearer)
        moment = f"{api.clock.now():%FT%TZ}"
        until(lambda alice=alice, moment=moment: last_active_at(api, alice) == moment)


def test_uses_that_come_together_are_recorded_once(api: Api):
    alice = api.sign_in()
    api.clock.advance(60)
    api.at_once([("GET", "/api/auth/session", alice.bearer)] * 50)
    until(lambda: last_active_at(api, alice) == "2026-11-23T12:01:00Z")
    assert [topic for topic, _ in api.log()].count("SessionTouched") == 1


def test_keys_and_refused_credentials_touch_nothing(api: Api):
    alice, ended = api.sign_in(), api.sign_in()
    api.delete(f"/api/sessions/{ended.id}", alice.bearer)
    api.clock.advance(60)
    before = api.log()
    api.get("/api/users/alice/sessions", ADMIN)
    api.get("/api/users/alice/sessions?status=all", bearer(access_token(sub="web", scope="users:admin")))
    api.get("/api/auth/session", ended.bearer)
    api.get("/api/auth/session", [*alice.bearer.items(), *alice.by_cookie.items()])
    api.sign_in("bob")
    assert [fact for fact in api.log()[len(before) :] if fact[0] == "SessionTouched"] == []
    assert last_active_at(api, alice) == "2026-11-23T12:00:00Z"


def test_a_check_waits_for_no_touch_and_survives_its_loss(api: Api, monkeypatch: pytest.MonkeyPatch):
    alice = api.sign_in()
    api.clock.advance(60)
    writer = api.service.writer
    with api.service.recorder.appending():
        stuck = api.service.ledger.disable_user("bob", REQUEST)
        until(lambda: writer._queue.empty())
        monkeypatch.setattr("store.writer.QUEUE_SIZE", 1)
        waiting = api.service.ledger.disable_user("carol", REQUEST)
        assert told(api.begin({"user_id": "dave"})) == (503, "busy")
        assert api.begin({"user_id": "dave"}).headers["Retry-After"] == "1"
        assert api.is_active(alice.by_cookie)
        assert api.ids(alice.by_cookie) == [alice.id]
    assert [stuck.result().result, waiting.result().result] == [True, True]
    assert "SessionTouched" not in [topic for topic, _ in api.log()]
    assert api.is_active(alice.by_cookie)
    until(lambda: "SessionTouched" in [topic for topic, _ in api.log()])


# -- signing out


def test_signing_out_ends_the_session_and_clears_the_browser(api: Api):
    alice, other = api.sign_in(), api.sign_in()
    answer = api.post("/api/auth/signout", alice.by_cookie)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["Set-Cookie"] == CLEARED
    assert answer.headers["Clear-Site-Data"] == CLEAR_SITE_DATA
    assert [api.is_active(s.bearer) for s in (alice, other)] == [False, True]
    [ended] = api.sessions(other.bearer, "?status=ended")
    assert (ended["id"], ended["end_reason"], ended["ended_by"]) == (alice.id, "signed_out", "self")


def test_whatever_is_not_active_is_signed_out_alike(api: Api):
    alice, dead, expired = api.sign_in(), api.sign_in(), api.sign_in("bob")
    api.post("/api/auth/signout", dead.bearer)
    api.clock.advance(1000)
    api.is_active(alice.bearer)
    until(lambda: last_active_at(api, alice) > "2026-11-23T12:16:00Z")
    api.clock.advance(900)
    before = api.log()
    for headers in (
        {},
        dead.bearer,
        dead.by_cookie,
        expired.by_cookie,
        by_cookie("A" * 43),
        by_cookie("not even a token"),
        by_cookie(""),
        bearer("A" * 43),
        bearer("slk_unknown"),
        bearer("a.b.c"),
        bearer(access_token(sub="bob", sid=alice.id)),
        bearer(access_token(sub="alice", sid=dead.id, exp=1)),
        ADMIN,
        {"Authorization": "Basic YTpi"},
    ):
        answer = api.post("/api/auth/signout", headers)
        assert (answer.status_code, answer.headers.get("Set-Cookie")) == (204, CLEARED), headers
        assert answer.headers["Clear-Site-Data"] == CLEAR_SITE_DATA
    assert [fact for fact in api.log()[len(before) :] if fact[0] != "SessionTouched"] == []
    assert api.is_active(alice.bearer)


def test_an_access_token_that_has_expired_still_names_the_session_to_end(api: Api):
    alice = api.sign_in()
    expired = bearer(access_token(sub="alice", sid=alice.id, exp=1))
    assert api.get("/api/auth/session", expired).status_code == 401
    assert api.post("/api/auth/signout", expired).status_code == 204
    assert not api.is_active(alice.bearer)


@pytest.mark.parametrize("way", ["cookie", "token", "access token"])
def test_each_credential_of_a_session_signs_it_out(api: Api, way: str):
    alice = api.sign_in()
    assert api.post("/api/auth/signout", alice.ways_in[way]).status_code == 204
    assert [api.is_active(headers) for headers in alice.ways_in.values()] == [False, False, False]


def test_a_form_of_a_page_leads_back_to_the_start(api: Api):
    alice = api.sign_in()
    answer = api.post("/api/auth/signout", {**alice.by_cookie, **FORM}, content=b"really=yes")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert (answer.headers["Set-Cookie"], answer.headers["Clear-Site-Data"]) == (CLEARED, CLEAR_SITE_DATA)
    assert not api.is_active(alice.bearer)


def test_two_credentials_sign_nobody_out(api: Api):
    alice, bob = api.sign_in("alice"), api.sign_in("bob")
    answer = api.post("/api/auth/signout", {**alice.by_cookie, **bob.bearer})
    assert told(answer) == (400, "two-credentials")
    assert "Set-Cookie" not in answer.headers
    assert [api.is_active(s.bearer) for s in (alice, bob)] == [True, True]


@pytest.mark.parametrize("held", [True, False], ids=["with the cookie", "without it, as SameSite makes it"])
def test_t_07_another_site_signs_nobody_out(api: Api, held: bool):
    alice = api.sign_in()
    cookie = alice.by_cookie if held else {}
    for origin in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
        answer = api.post("/api/auth/signout", {**cookie, **FORM, **origin}, content=b"")
        assert told(answer) == (403, "cross-site-request")
        assert {"Set-Cookie", "Clear-Site-Data"}.isdisjoint(answer.headers)
    assert api.is_active(alice.bearer)
