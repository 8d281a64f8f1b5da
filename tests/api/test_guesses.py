"""Guesses are counted by who makes them, and refused from a limit on; nobody else is (T-05, API-10)."""

import logging
import re
from collections.abc import Callable
from uuid import uuid4

import httpx
import pytest

from api.errors import Problem
from api.guesses import MAX_REMEMBERED, WINDOW_S, Guesses, UnknownCredential
from domain.errors import SessionNotFound
from store.api_keys import Scope
from tests.api.client import ADMIN, Api, Headers, SignedIn, access_token, bearer, by_cookie, kind, told
from tests.api.conftest import OpenApi
from tests.clock import NOON, ManualClock

LIMIT = 5
NOT_FOUND = (404, "session-not-found")
UNKNOWN = (401, "invalid-credential")
TOO_MANY = (429, "too-many-guesses")

one_database = pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # counting asks none


@pytest.fixture
def api(open_api: OpenApi) -> Api:
    return open_api(guess_limit=LIMIT)


def wrong_id(api: Api, headers: Headers) -> httpx.Response:
    return api.delete(f"/api/sessions/{uuid4()}", headers)


def wrong_credential(api: Api) -> httpx.Response:
    return api.get("/api/auth/session", bearer("A" * 43))


def reach_the_limit(guess: Callable[[], httpx.Response], answer: tuple[int, str]) -> None:
    assert [told(guess()) for _ in range(LIMIT)] == [answer] * LIMIT


# -- ids


def test_a_caller_over_the_limit_is_refused_before_his_id_is_looked_up(api: Api):
    alice, other = api.sign_in(), api.sign_in()
    reach_the_limit(lambda: wrong_id(api, alice.bearer), NOT_FOUND)
    assert told(wrong_id(api, alice.bearer)) == TOO_MANY
    assert told(api.delete(f"/api/sessions/{other.id}", alice.bearer)) == TOO_MANY
    assert api.is_active(other.bearer)


def test_what_counts_is_the_user_by_whichever_way_in(api: Api):
    alice, again = api.sign_in(), api.sign_in()
    ways = [*alice.ways_in.values(), *again.ways_in.values()]
    answers = [told(wrong_id(api, headers)) for headers in ways]
    assert answers == [NOT_FOUND] * LIMIT + [TOO_MANY]


@one_database
def test_every_wrong_id_is_a_guess(api: Api):
    alice, bob = api.sign_in(), api.sign_in("bob")
    for wrong in (bob.id, "x", alice.id.replace("-", ""), "A" * 43, str(uuid4())):
        assert told(api.delete(f"/api/sessions/{wrong}", alice.bearer)) == NOT_FOUND
    assert told(wrong_id(api, alice.bearer)) == TOO_MANY


@one_database
def test_an_id_that_is_right_is_no_guess(api: Api):
    alice, other = api.sign_in(), api.sign_in()
    for _ in range(2 * LIMIT):
        assert api.delete(f"/api/sessions/{other.id}", alice.bearer).status_code == 200
    assert told(wrong_id(api, alice.bearer)) == NOT_FOUND


def test_nobody_else_and_nothing_else_is_refused(api: Api):
    alice, bob, victim = api.sign_in(), api.sign_in("bob"), api.sign_in("victim")
    reach_the_limit(lambda: wrong_id(api, alice.bearer), NOT_FOUND)
    assert api.is_active(alice.bearer)
    assert len(api.sessions(alice.bearer)) == 1
    assert told(wrong_id(api, bob.bearer)) == NOT_FOUND
    assert api.delete(f"/api/users/victim/sessions/{victim.id}", ADMIN).status_code == 200
    assert api.delete(f"/api/sessions/{bob.id}", bob.bearer).status_code == 200


def test_an_administrator_is_counted_by_key_or_client(api: Api):
    first, second = (bearer(api.key(Scope.USERS_ADMIN)[1]) for _ in range(2))
    client = bearer(access_token(sub="web", scope=str(Scope.USERS_ADMIN)))
    victim = api.sign_in("victim")
    for headers in (first, second, client):
        reach_the_limit(lambda headers=headers: api.delete("/api/users/victim/sessions/x", headers), NOT_FOUND)
        assert told(api.delete(f"/api/users/victim/sessions/{victim.id}", headers)) == TOO_MANY
    assert api.delete(f"/api/users/victim/sessions/{victim.id}", ADMIN).status_code == 200
    assert [topic for topic, _ in api.log()] == ["UserEnrolled", "SessionCreated", "SessionRevoked"]


def test_guesses_at_once_are_not_answered_more_often(api: Api):
    alice = api.sign_in()
    calls = [("DELETE", f"/api/sessions/{uuid4()}", alice.bearer) for _ in range(4 * LIMIT)]
    answers = sorted(told(answer) for answer in api.at_once(calls))
    assert answers == [NOT_FOUND] * LIMIT + [TOO_MANY] * 3 * LIMIT


# -- credentials


def unknown() -> dict[str, Headers]:
    return {
        "a session token": bearer("A" * 43),
        "a cookie": by_cookie("A" * 43),
        "no token at all": bearer("x"),
        "a key": bearer("slk_" + "A" * 43),
        "a JWT that nobody signed": bearer("a.b.c"),
        "a JWT that was altered": bearer(access_token(sub="web")[:-4] + "AAAA"),
    }


@pytest.mark.parametrize("what", unknown())
def test_an_unknown_credential_is_a_guess(api: Api, what: str):
    reach_the_limit(lambda: api.get("/api/auth/session", unknown()[what]), UNKNOWN)
    for headers in unknown().values():
        assert told(api.get("/api/auth/session", headers)) == TOO_MANY
        assert told(api.get("/api/users/alice/sessions", headers)) == TOO_MANY


@one_database
def test_without_an_issuer_a_jwt_is_a_guess(open_api: OpenApi):
    api = open_api(guess_limit=LIMIT, jwt_issuer=None, jwt_audience=None, jwt_jwks=None)
    reach_the_limit(lambda: api.get("/api/auth/session", bearer(access_token(sub="web"))), UNKNOWN)
    assert told(wrong_credential(api)) == TOO_MANY


def no_guesses() -> dict[str, Callable[[Api], Headers]]:
    """What was ours once, or says itself that it is nothing."""

    def ended(api: Api) -> SignedIn:
        dead = api.sign_in("dead")
        assert api.delete(f"/api/sessions/{dead.id}", dead.bearer).status_code == 200
        return dead

    def revoked_key(api: Api) -> str:
        key, secret = api.key(*Scope)
        assert api.revoke_key(key)
        return secret

    return {
        "an ended token": lambda api: ended(api).bearer,
        "an ended cookie": lambda api: ended(api).by_cookie,
        "a JWT of an ended session": lambda api: bearer(ended(api).access_token()),
        "an expired JWT": lambda api: bearer(api.sign_in().access_token(exp=NOON.timestamp())),
        "a JWT for others": lambda api: bearer(api.sign_in().access_token(aud="others")),
        "a revoked key": lambda api: bearer(revoked_key(api)),
        "nothing": lambda api: {},
        "another scheme": lambda api: {"Authorization": "Basic x"},
        "two words": lambda api: {"Authorization": "Bearer x y"},
    }


@pytest.mark.parametrize("what", no_guesses())
def test_what_has_ended_is_no_guess_and_is_answered_as_ever(api: Api, what: str):
    headers = no_guesses()[what](api)
    as_ever = told(api.get("/api/auth/session", headers))
    assert as_ever[0] in (400, 401)
    assert [told(api.get("/api/auth/session", headers)) for _ in range(2 * LIMIT)] == [as_ever] * 2 * LIMIT
    reach_the_limit(lambda: wrong_credential(api), UNKNOWN)
    assert told(wrong_credential(api)) == TOO_MANY
    assert told(api.get("/api/auth/session", headers)) == as_ever


def test_whoever_has_a_good_credential_is_not_touched_by_his_neighbours(api: Api):
    alice, key = api.sign_in(), bearer(api.key(Scope.USERS_ADMIN)[1])
    reach_the_limit(lambda: wrong_credential(api), UNKNOWN)
    assert all(api.is_active(headers) for headers in alice.ways_in.values())
    assert api.get("/api/users/alice/sessions", key).status_code == 200
    assert api.sign_in("bob").user_id == "bob"


def test_the_token_of_who_was_erased_is_unknown_which_touches_nobody_with_a_good_one(api: Api):
    alice, bob = api.sign_in("alice"), api.sign_in("bob")
    assert api.delete("/api/users/alice", ADMIN).status_code == 200
    reach_the_limit(lambda: api.get("/api/auth/session", alice.by_cookie), UNKNOWN)
    assert told(api.get("/api/auth/session", alice.by_cookie)) == TOO_MANY
    assert all(api.is_active(headers) for headers in bob.ways_in.values())


@one_database
@pytest.mark.parametrize(
    ("address", "neighbour", "stranger"),
    [
        ("192.0.2.7", "::ffff:192.0.2.7", "192.0.2.8"),
        ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"),
        ("fe80::1%eth0", "fe80::2%eth1", "fe80:0:0:1::1"),
        ("::ffff:192.0.2.7", "192.0.2.7", "::ffff:192.0.2.8"),
        ("no address", "x" * 1000, "192.0.2.7"),
    ],
)
def test_an_address_or_half_an_ipv6_address_counts_as_one(api: Api, address: str, neighbour: str, stranger: str):
    reach_the_limit(lambda: wrong_credential(api.seen_from(address)), UNKNOWN)
    assert told(wrong_credential(api.seen_from(neighbour))) == TOO_MANY
    assert told(wrong_credential(api.seen_from(stranger))) == UNKNOWN


def test_signing_out_is_answered_as_ever_and_is_no_guess(api: Api):
    for headers in unknown().values():
        assert api.post("/api/auth/signout", headers).status_code == 204
    reach_the_limit(lambda: wrong_credential(api), UNKNOWN)
    for headers in unknown().values():
        assert api.post("/api/auth/signout", headers).status_code == 204


# -- the limit


def structured(field: str) -> tuple[str, dict[str, int]]:
    """A list of one string with integer parameters, as RFC 9651 writes it."""
    match = re.fullmatch(r'"([ !#-\[\]-~]*)"((?:; *[a-z*][a-z0-9_.*-]*=-?[0-9]{1,15})*)', field)
    assert match, field
    pairs = (pair.strip().split("=") for pair in match[2].split(";")[1:])
    return match[1], {name: int(value) for name, value in pairs}


@one_database
@pytest.mark.parametrize("waited", [0, 0.5, 1, 59, 59.999_999])
def test_the_answer_says_which_limit_and_for_how_long(api: Api, waited: float):
    reach_the_limit(lambda: wrong_credential(api), UNKNOWN)
    api.clock.advance(waited)
    answer = wrong_credential(api)
    assert kind(answer) == "too-many-guesses"
    name, left = structured(answer.headers["RateLimit"])
    assert structured(answer.headers["RateLimit-Policy"]) == (name, {"q": LIMIT, "w": WINDOW_S})
    assert left["r"] == 0
    assert WINDOW_S - waited <= left["t"] < WINDOW_S - waited + 1
    assert int(answer.headers["Retry-After"]) >= left["t"]
    assert answer.json()["violated-policies"] == [name]
    assert "WWW-Authenticate" not in answer.headers
    api.clock.advance(left["t"])
    assert told(wrong_credential(api)) == UNKNOWN


@one_database
def test_a_minute_after_the_first_guess_the_count_begins_anew(api: Api):
    alice = api.sign_in()
    assert told(wrong_id(api, alice.bearer)) == NOT_FOUND
    api.clock.advance(WINDOW_S - 1)
    for _ in range(LIMIT - 1):
        assert told(wrong_id(api, alice.bearer)) == NOT_FOUND
    assert told(wrong_id(api, alice.bearer)) == TOO_MANY
    api.clock.advance(1)
    reach_the_limit(lambda: wrong_id(api, alice.bearer), NOT_FOUND)
    assert told(wrong_id(api, alice.bearer)) == TOO_MANY


@one_database
def test_the_two_sorts_are_counted_apart(api: Api):
    alice = api.sign_in()
    reach_the_limit(lambda: wrong_credential(api), UNKNOWN)
    reach_the_limit(lambda: wrong_id(api, alice.bearer), NOT_FOUND)


@one_database
def test_reaching_the_limit_is_told_once_by_network_or_caller(api: Api, caplog: pytest.LogCaptureFixture):
    alice, (key, secret) = api.sign_in(), api.key(Scope.USERS_ADMIN)
    stream = api.service.keys.pseudonym("alice")
    for _ in range(3 * LIMIT):
        wrong_credential(api)
        wrong_id(api, alice.bearer)
        api.delete("/api/users/alice/sessions/x", bearer(secret))
    assert lines(caplog) == [
        ("credentials", "192.0.2.0/24"),
        ("session ids", f"user:{stream}"),
        ("session ids", f"key:{key.key_id}"),
    ]
    api.clock.advance(WINDOW_S)
    for _ in range(LIMIT):
        wrong_credential(api)
    assert lines(caplog)[3:] == [("credentials", "192.0.2.0/24")]


@one_database
def test_where_no_client_is_logged_no_network_is(open_api: OpenApi, caplog: pytest.LogCaptureFixture):
    api = open_api(guess_limit=LIMIT, store_client_details=False)
    reach_the_limit(lambda: wrong_credential(api), UNKNOWN)
    assert lines(caplog) == [("credentials", None)]


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str | None]]:
    """What was guessed, and by whom, in each warning."""
    found = [record for record in caplog.records if record.name == "ledger.guesses"]
    assert {record.levelno for record in found} <= {logging.WARNING}
    return [(record.fields["of"], record.fields["by"]) for record in found]  # type: ignore[attr-defined]


@one_database
def test_every_call_with_a_credential_documents_the_answer(api: Api):
    paths = api.get("/openapi.json").json()["paths"]
    for method, path in api.operations():
        documented = paths[path][method.lower()]["responses"].get("429", {})
        with_credential = path.startswith(("/api/", "/oauth2/")) and path != "/api/auth/signout"
        assert (documented.get("headers", {}).keys() >= set(HEADERS)) is with_credential, path


HEADERS = ["Retry-After", "RateLimit-Policy", "RateLimit"]


def refuses(guesses: Guesses, caller: str) -> bool:
    """Whether this caller's next wrong id is one too many."""
    try:
        with guesses.looking_up(caller):
            raise SessionNotFound
    except SessionNotFound:
        return False
    except Problem as problem:
        return problem.kind == "too-many-guesses"


def test_a_limit_of_zero_is_none(clock: ManualClock):
    guesses = Guesses(0, clock.micros)
    assert not any(refuses(guesses, "key:a") for _ in range(1000))
    for _ in range(1000):
        guesses.count_credential(("192.0.2.7", 5))


def test_only_so_many_guessers_are_remembered_and_the_latest_are(clock: ManualClock):
    guesses = Guesses(1, clock.micros)
    for number in range(MAX_REMEMBERED + 10):
        assert not refuses(guesses, f"key:{number}")
    assert refuses(guesses, "key:10")
    assert not refuses(guesses, "key:9")


def test_an_unknown_credential_is_a_refusal_like_others():
    assert (UnknownCredential("No.").status, UnknownCredential("No.").kind) == UNKNOWN
