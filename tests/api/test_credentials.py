"""Who may call what: each credential against every route (D13, API-09, WEB-04, SES-02, SES-05, SES-12)."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import pytest

from projections.audit import AuditProjection
from projections.follower import Progress
from store.api_keys import Scope
from tests.api.client import ADMIN, Api, Call, SignedIn, access_token, bearer, by_cookie, settled, told, until
from tests.api.conftest import OpenApi
from tests.api.corpus import (
    ALL,
    EXPIRED,
    IN_URL,
    INVALID,
    MISSING,
    NO_USER,
    REALM,
    Answer,
    Case,
    absent_or_malformed,
    accepted,
    doubled,
    forgeries,
    not_valid,
    refused,
)
from tests.clock import NOON
from tests.store.given import everything

OPEN = {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics")}
SIGN_OUT = ("POST", "/api/auth/signout")
OF_USERS = [
    ("GET", "/api/sessions"),
    ("DELETE", "/api/sessions"),
    ("DELETE", "/api/sessions/{session_id}"),
    ("POST", "/api/sessions/revoke-all"),
    ("GET", "/api/auth/session"),
]
OF_SERVICES = {("POST", "/api/sessions"): "sessions:create", ("POST", "/oauth2/introspect"): "tokens:introspect"}
ERASE = ("DELETE", "/api/users/{user_id}")
"""Of somebody who is asked nothing else."""

OF_ADMINISTRATORS = {
    ("POST", "/api/sessions/revoke"): "users:admin",
    ("POST", "/api/users/{user_id}/disable"): "users:admin",
    ("POST", "/api/users/{user_id}/enable"): "users:admin",
    ERASE: "users:admin",
    ("GET", "/api/users/{user_id}/sessions"): "users:admin",
    ("DELETE", "/api/users/{user_id}/sessions"): "users:admin",
    ("DELETE", "/api/users/{user_id}/sessions/{session_id}"): "users:admin",
}
OF_AUDITORS = {
    ("GET", "/api/audit"): "audit:read",
    ("GET", "/api/audit/events"): "audit:read",
    ("GET", "/api/audit/stream"): "audit:read",
    ("GET", "/api/audit/export"): "audit:read",
    ("GET", "/api/audit/{event_id}"): "audit:read",
    ("GET", "/api/users/{user_id}/audit"): "audit:read",
    ("GET", "/api/ledger/key"): "audit:read",
    ("GET", "/api/ledger/checkpoint"): "audit:read",
    ("GET", "/api/ledger/proof/inclusion"): "audit:read",
    ("GET", "/api/ledger/proof/consistency"): "audit:read",
}
BODIES: dict[Call, dict[str, Any]] = {
    ("GET", "/api/ledger/proof/inclusion"): {"params": {"position": 1}},
    ("GET", "/api/ledger/proof/consistency"): {"params": {"from": 1, "to": 2}},
    ("POST", "/api/sessions"): {"json": {"user_id": "victim"}},
    ("POST", "/oauth2/introspect"): {"data": {"token": "x"}},
    ("POST", "/api/sessions/revoke"): {"json": {"reason": "revoke_all", "dry_run": True}},
}
SCOPED = {**OF_SERVICES, **OF_ADMINISTRATORS, **OF_AUDITORS}
GUARDED = [*OF_USERS, *SCOPED]
UNSAFE_OF_USERS = [call for call in OF_USERS if call[0] != "GET"]


def send(api: Api, call: Call, headers: Any, session_id: str = "x") -> httpx.Response:
    """A call as somebody would make it whose credential is good: nothing else is wrong with it."""
    method, template = call
    if "/ledger/" in template:
        api.service.sealer.seal()
    user_id = "leaver" if call == ERASE else "victim"
    path = template.format(user_id=user_id, session_id=session_id, event_id=first_event(api))
    return api.request(method, path, headers, **BODIES.get(call, {}))


def first_event(api: Api) -> UUID:
    """The id of an event that there is, and that auditors find."""
    [first] = api.service.recorder.select_notifications(1, 1) or [None]
    if first is None:
        return UUID(int=0)
    until(lambda: audit_of(api).position > 0)
    fact: Any = api.service.mapper.to_domain_event(first)
    return fact.event_id


def audit_of(api: Api) -> Progress:
    """How far the audit read model is."""
    [audit] = [each for each in api.service.follower.progress() if each.name == AuditProjection.name]
    return audit


def answers(api: Api, calls: list[Call], headers: Any) -> dict[Call, Answer]:
    return {call: answered(send(api, call, headers)) for call in calls}


def answered(answer: httpx.Response) -> Answer:
    return (*told(answer), answer.headers.get("WWW-Authenticate"))


def missing(scope: str) -> Answer:
    return (403, "insufficient-scope", f'{REALM}, error="insufficient_scope", scope="{scope}"')


def test_every_route_is_in_one_class(api: Api):
    assert sorted(api.operations()) == sorted([*OPEN, SIGN_OUT, *GUARDED])


# -- refused everywhere


def test_a_bad_credential_is_refused_by_every_route_for_what_it_is_and_changes_nothing(api: Api):
    assert_refused(api, [*absent_or_malformed(), *doubled(), *not_valid()])


def test_t_20_a_token_that_chose_its_algorithm_or_key_is_refused_by_every_route(api: Api):
    assert_refused(api, forgeries())


def assert_refused(api: Api, bad: list[Case]) -> None:
    alice, victim = api.sign_in(), api.sign_in("victim")
    cases = [(name, make(api, alice), expected) for name, make, expected in bad]
    settled(api)
    before = everything(api.service)
    for name, headers, expected in cases:
        assert (name, answers(api, GUARDED, headers)) == (name, dict.fromkeys(GUARDED, expected))
    assert everything(api.service) == before
    assert [api.is_active(s.bearer) for s in (alice, victim)] == [True, True]


def test_a_bad_credential_signs_nobody_out(api: Api):
    for name, make, expected in refused():
        alice = api.sign_in()
        answer = send(api, SIGN_OUT, make(api, alice))
        assert (name, answered(answer)) == (name, (204, None, None) if expected in (MISSING, INVALID) else expected)
        assert (name, "Set-Cookie" in answer.headers) == (name, answer.status_code == 204)
        assert (name, api.is_active(alice.bearer)) == (name, name != EXPIRED)


def test_what_is_open_asks_for_no_credential_and_minds_none(api: Api):
    alice = api.sign_in()
    for name, make, _ in [*accepted(), *refused()]:
        headers = make(api, alice)
        for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
            assert (name, api.get(path, headers).status_code) == (name, 200)


def test_time_ends_every_credential_of_a_session(api: Api):
    alice = api.sign_in()
    access = bearer(alice.access_token(exp=NOON.timestamp() + 10_000, scope=ALL))
    api.clock.advance(1800)
    for headers in (alice.bearer, alice.by_cookie, access):
        assert answers(api, GUARDED, headers) == dict.fromkeys(GUARDED, INVALID)


def test_without_an_issuer_no_access_token_is_good(open_api: OpenApi):
    api = open_api(jwt_issuer=None, jwt_audience=None, jwt_jwks=None)
    headers = bearer(api.sign_in().access_token(scope=ALL))
    assert answers(api, GUARDED, headers) == dict.fromkeys(GUARDED, INVALID)


@pytest.mark.parametrize("name", ["access_token", "token", "session", "Access_Token", "%74oken", "a=b&token"])
def test_a_secret_in_the_url_is_refused_by_every_route_though_another_is_good(shared_api: Api, name: str):
    alice = shared_api.sign_in("victim")
    settled(shared_api)
    before = everything(shared_api.service)
    for method, template in shared_api.operations():
        path = template.format(user_id="victim", session_id=alice.id, event_id=alice.id)
        for headers in (alice.bearer, alice.by_cookie, bearer(alice.access_token()), ADMIN, {}):
            answer = shared_api.request(method, f"{path}?{name}={alice.token}", headers)
            assert answered(answer) == IN_URL, (method, path)
    assert everything(shared_api.service) == before
    assert shared_api.is_active(alice.bearer)


@pytest.mark.parametrize("name", ["__Host-sid", "sid", "authorization", "api_key", "jwt", "id_token", "Bearer"])
def test_a_secret_in_the_url_by_any_other_name_opens_nothing(shared_api: Api, name: str):
    for secret in (shared_api.sign_in().token, shared_api.key(*Scope)[1], access_token(sub="web", scope=ALL)):
        for method, template in GUARDED:
            path = template.format(user_id="victim", session_id="x", event_id="x")
            body = {"user_id": "x"} if (method, template) in OF_SERVICES else None
            answer = shared_api.request(method, f"{path}?{name}={secret}", json=body)
            assert told(answer) == (422, "invalid-request"), (method, path)
            assert secret not in answer.text


# -- the right kind in the right place


@pytest.mark.parametrize("way", ["cookie", "token", "access token"])
def test_a_session_opens_the_routes_of_users_only(api: Api, way: str):
    for call in OF_USERS:
        victim = api.sign_in("victim")
        assert send(api, call, victim.ways_in[way], victim.id).status_code == 200, call
    alice = api.sign_in()
    assert answers(api, [*SCOPED], alice.ways_in[way]) == {call: missing(scope) for call, scope in SCOPED.items()}
    assert api.is_active(alice.bearer)


def test_a_key_opens_what_its_scopes_say_and_nothing_of_users(api: Api):
    victim = api.sign_in("victim")
    for scope in Scope:
        headers = bearer(api.key(scope)[1])
        assert answers(api, [*OF_USERS], headers) == dict.fromkeys(OF_USERS, NO_USER)
        for call, needed in SCOPED.items():
            answer = send(api, call, headers, victim.id)
            expected = (answer.status_code, None, None) if needed == scope else missing(needed)
            assert answered(answer) == expected, (scope, call)
            assert answer.is_success == (needed == scope)
            api.post("/api/users/victim/enable", ADMIN)


def test_a_client_of_its_own_opens_what_its_scopes_say_and_nothing_of_users(api: Api):
    for scope in Scope:
        headers = bearer(access_token(sub="web", scope=f"openid {scope}"))
        assert answers(api, [*OF_USERS], headers) == dict.fromkeys(OF_USERS, NO_USER)
        for call, needed in SCOPED.items():
            victim = api.sign_in("victim")
            answer = send(api, call, headers, victim.id)
            assert answer.is_success == (needed == scope), (scope, call)
            if not answer.is_success:
                assert answered(answer) == missing(needed)
            api.post("/api/users/victim/enable", ADMIN)


def test_a_users_access_token_with_scopes_opens_both(api: Api):
    headers = bearer(api.sign_in().access_token(scope=ALL))
    victim = api.sign_in("victim")
    assert send(api, ("GET", "/api/auth/session"), headers).json()["user_id"] == "alice"
    assert send(api, ("DELETE", "/api/users/{user_id}/sessions/{session_id}"), headers, victim.id).status_code == 200


def test_a_scope_is_a_whole_word(api: Api):
    for scope in ("users:administrator", "users", "USERS:ADMIN", "users:admin,sessions:create"):
        headers = bearer(access_token(sub="web", scope=scope))
        assert answers(api, [*SCOPED], headers) == {call: missing(needed) for call, needed in SCOPED.items()}


def test_every_form_of_a_good_credential_is_known_for_whose_it_is(api: Api):
    for name, make, expected in accepted():
        alice = api.sign_in()
        answer = api.get("/api/auth/session", make(api, alice))
        assert (name, answered(answer)) == (name, expected)
        if answer.is_success:
            told_of = answer.json()
            assert (told_of["user_id"], told_of["session"]["id"]) == ("alice", alice.id), name


@pytest.mark.parametrize(
    "key",
    ["A" * 43, "slk_" + "k" * 43, f"{'a' * 20}.{'b' * 20}.{'c' * 20}", "!#$%&'()*,:;<>?@[]^`{|}" + '"\\' * 5],
    ids=["a session token", "another key", "an access token", "nothing else"],
)
def test_the_first_key_may_look_like_anything(open_api: OpenApi, key: str):
    api = open_api(bootstrap_api_key=key)
    assert api.get("/api/users/alice/sessions", bearer(key)).status_code == 200
    assert told(api.get("/api/auth/session", bearer(key))) == (403, "insufficient-scope")
    assert told(api.get("/api/auth/session", by_cookie("A" * 43))) == (401, "invalid-credential")


def test_without_a_first_key_there_is_none(open_api: OpenApi):
    api = open_api(bootstrap_api_key=None)
    assert told(api.get("/api/users/alice/sessions", ADMIN)) == (401, "invalid-credential")


def test_t_21_a_token_that_the_ledger_never_made_is_never_adopted(api: Api):
    chosen = "AHk3p0mLr4dV5b8yqWz1nXcTfGhJ2sKe6uQiOaPvRtM"
    answer = api.begin({"user_id": "alice"}, Cookie="sid=x")
    assert answer.json()["token"] != chosen
    assert told(api.begin({"user_id": "alice"}, **by_cookie(chosen))) == (400, "two-credentials")
    assert told(api.begin({"user_id": "alice", "replaces": chosen})) == (422, "foreign-replacement")
    assert not api.is_active(by_cookie(chosen))


# -- other sites

SITES: list[tuple[dict[str, str], bool]] = [
    ({}, True),
    ({"Sec-Fetch-Site": "same-origin"}, True),
    ({"Sec-Fetch-Site": "none"}, True),
    ({"Sec-Fetch-Site": "same-origin", "Origin": "https://ledger.example"}, True),
    ({"Sec-Fetch-Site": "same-site"}, False),
    ({"Sec-Fetch-Site": "cross-site"}, False),
    ({"Sec-Fetch-Site": ""}, False),
    ({"Sec-Fetch-Site": "SAME-ORIGIN"}, False),
    ({"Sec-Fetch-Site": "cross-site", "Origin": "https://ledger.example"}, False),
    ({"Origin": "https://ledger.example"}, True),
    ({"Origin": "https://evil.example"}, False),
    ({"Origin": "https://ledger.example.evil.example"}, False),
    ({"Origin": "https://evil.ledger.example"}, False),
    ({"Origin": "https://ledger.example:8443"}, False),
    ({"Origin": "https://evil@ledger.example"}, False),
    ({"Origin": "null"}, False),
    ({"Origin": ""}, False),
    ({"Origin": "https://["}, False),
]


@pytest.mark.parametrize("call", [*UNSAFE_OF_USERS, SIGN_OUT], ids=" ".join)
def test_t_07_by_cookie_only_our_own_pages_change_anything(api: Api, call: Call):
    for headers, allowed in SITES:
        alice, victim = api.sign_in("victim"), api.sign_in("victim")
        answer = send(api, call, {**alice.by_cookie, **headers}, victim.id)
        assert (headers, answer.is_success) == (headers, allowed)
        if not allowed:
            assert told(answer) == (403, "cross-site-request")
            assert [api.is_active(s.bearer) for s in (alice, victim)] == [True, True]


def test_by_cookie_anybody_may_ask_since_only_our_pages_can_read_the_answer(api: Api):
    alice = api.sign_in()
    for headers, _ in SITES:
        for path in ("/api/sessions", "/api/auth/session"):
            answer = api.get(path, {**alice.by_cookie, **headers})
            assert answer.status_code == 200
            assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_bearer_is_no_browsers_and_may_come_from_anywhere(api: Api):
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        for call in [*UNSAFE_OF_USERS, SIGN_OUT]:
            alice, victim = api.sign_in("victim"), api.sign_in("victim")
            assert send(api, call, {**alice.bearer, **headers}, victim.id).is_success


# -- nothing succeeds after its end (SES-12)


def ways_to_end() -> dict[str, Callable[[Api, SignedIn], httpx.Response]]:
    def other(api: Api) -> SignedIn:
        return api.sign_in()

    return {
        "signing out": lambda api, a: api.post("/api/auth/signout", a.by_cookie),
        "ending it": lambda api, a: api.delete(f"/api/sessions/{a.id}", a.bearer),
        "ending it from elsewhere": lambda api, a: api.delete(f"/api/sessions/{a.id}", other(api).bearer),
        "ending the others": lambda api, a: api.delete("/api/sessions", other(api).bearer),
        "ending all": lambda api, a: api.post("/api/sessions/revoke-all", a.bearer),
        "ending all from elsewhere": lambda api, a: api.post("/api/sessions/revoke-all", other(api).bearer),
        "an administrator ends it": lambda api, a: api.delete(f"/api/users/alice/sessions/{a.id}", ADMIN),
        "an administrator ends all": lambda api, a: api.delete("/api/users/alice/sessions", ADMIN),
        "disabling the user": lambda api, a: api.post("/api/users/alice/disable", ADMIN),
        "replacing it": lambda api, a: api.begin({"user_id": "alice", "replaces": a.token}),
        "one more than the cap": lambda api, a: [api.begin({"user_id": "alice"}) for _ in range(3)][-1],
    }


@pytest.mark.parametrize("way", ways_to_end())
def test_t_01_after_the_answer_nothing_of_an_ended_session_succeeds(open_api: OpenApi, way: str):
    api = open_api(max_sessions_per_user=3)
    alice = api.sign_in()
    access = bearer(alice.access_token(scope=ALL))
    assert all(api.is_active(headers) for headers in (alice.bearer, alice.by_cookie, access))
    assert ways_to_end()[way](api, alice).is_success
    for headers in (alice.bearer, alice.by_cookie, access):
        assert answers(api, GUARDED, headers) == dict.fromkeys(GUARDED, INVALID)
    api.post("/api/users/alice/enable", ADMIN)
    assert not api.is_active(alice.bearer)


def test_t_01_what_asks_together_with_an_end_is_answered_once_and_for_all(api: Api):
    alice = api.sign_in()
    checks = [("GET", "/api/auth/session", alice.bearer)] * 20
    answers = api.at_once([*checks, ("POST", "/api/auth/signout", alice.bearer), *checks])
    assert {answer.status_code for answer in answers} <= {200, 204, 401}
    assert not any(answer.is_success for answer in api.at_once(checks))
