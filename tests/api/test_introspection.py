"""What a token is good for, told to a service (RFC 7662, TOK-08)."""

from typing import Any

import httpx
import pytest

from store.api_keys import Scope
from tests.api.client import (
    ADMIN,
    BOOTSTRAP_KEY,
    ISSUER,
    Api,
    access_token,
    bearer,
    by_hand,
    same_but_request_id,
    settled,
    standing_claims,
    told,
)
from tests.api.conftest import OpenApi
from tests.api.corpus import forgeries
from tests.clock import NOON
from tests.store.given import everything

PATH = "/oauth2/introspect"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SIGNED_IN_AT = int(NOON.timestamp())
INACTIVE = b'{"active":false}'


def ask(api: Api, token: str, headers: Any = None, **fields: str) -> httpx.Response:
    return api.post(PATH, headers or bearer(api.key(Scope.TOKENS_INTROSPECT)[1]), data={"token": token, **fields})


def told_of(api: Api, token: str, **fields: str) -> dict[str, Any]:
    answer = ask(api, token, **fields)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.json()


# -- what is active


def test_of_a_session_token_the_session_is_told(api: Api):
    alice = api.sign_in(auth_time=SIGNED_IN_AT - 60, amr=["pwd", "otp"])
    assert told_of(api, alice.token) == {
        "active": True,
        "sub": "alice",
        "sid": alice.id,
        "token_type": "Bearer",
        "iat": SIGNED_IN_AT,
        "exp": SIGNED_IN_AT + 1800,
        "auth_time": SIGNED_IN_AT - 60,
        "amr": ["pwd", "otp"],
    }


def test_what_is_not_known_is_left_out(api: Api):
    assert told_of(api, api.sign_in().token).keys() == {"active", "sub", "sid", "token_type", "iat", "exp"}


def test_of_a_users_access_token_what_the_issuer_signed_and_its_session(api: Api):
    alice = api.sign_in(amr=["pwd"])
    token = alice.access_token(scope="users:admin openid", acr="aal2")
    assert told_of(api, token) == {
        "active": True,
        "iss": ISSUER,
        "sub": "alice",
        "client_id": "web",
        "sid": alice.id,
        "token_type": "Bearer",
        "scope": "openid users:admin",
        "iat": SIGNED_IN_AT,
        "exp": SIGNED_IN_AT + 600,
        "amr": ["pwd"],
        "acr": "aal2",
    }


def test_of_a_clients_own_access_token_there_is_no_session(api: Api):
    assert told_of(api, access_token(sub="web", scope="audit:read")) == {
        "active": True,
        "iss": ISSUER,
        "sub": "web",
        "client_id": "web",
        "token_type": "Bearer",
        "scope": "audit:read",
        "iat": SIGNED_IN_AT,
        "exp": SIGNED_IN_AT + 600,
    }


def test_an_access_token_lasts_no_longer_than_its_session(api: Api):
    alice = api.sign_in()
    token = alice.access_token(exp=SIGNED_IN_AT + 100_000)
    assert told_of(api, token)["exp"] == SIGNED_IN_AT + 1800


def test_asking_is_no_use_of_the_session(api: Api):
    alice = api.sign_in()
    api.clock.advance(1000)
    before = everything(api.service)["log.events"]
    assert ask(api, alice.token, ADMIN).json()["exp"] == SIGNED_IN_AT + 1800
    settled(api)
    assert everything(api.service)["log.events"] == before
    api.clock.advance(800)
    assert not api.is_active(alice.bearer)


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "id_token", "no such kind", "é"])
def test_whatever_the_hint_says_is_ignored(shared_api: Api, hint: str):
    alice = shared_api.sign_in()
    assert told_of(shared_api, alice.token, token_type_hint=hint, more="ignored")["active"]


# -- what is not


def not_valid(api: Api) -> dict[str, str]:
    """Tokens that are not valid, each for another reason."""
    revoked, disabled, stranger = api.sign_in("revoked"), api.sign_in("disabled"), api.sign_in("stranger")
    api.delete(f"/api/sessions/{revoked.id}", revoked.bearer)
    api.post("/api/users/disabled/disable", ADMIN)
    return {
        "garbage": "x",
        "never made": "A" * 43,
        "beyond ASCII": "é" * 43,
        "three parts of nothing": "a.b.c",
        "three parts beyond ASCII": "é.é.é",
        "NUL": "a.\0.c",
        "long": "a" * 9000,
        "a session's id": stranger.id,
        "a session that was revoked": revoked.token,
        "a session of somebody disabled": disabled.token,
        "the JWT of a session that was revoked": revoked.access_token(),
        "the JWT of a session of somebody disabled": disabled.access_token(),
        "somebody else's session": stranger.access_token(sub="revoked"),
        "a JWT that has expired": stranger.access_token(exp=SIGNED_IN_AT),
        "a JWT for others": stranger.access_token(aud="https://other.example"),
        "a JWT of another issuer": stranger.access_token(iss="https://evil.example"),
        "a JWT without a session or a client": access_token(sub="alice", client_id=None),
        "a JWT that nobody signed": by_hand({"alg": "none", "typ": "at+jwt"}, standing_claims()),
        "an API key": api.key(*Scope)[1],
        "the first key": BOOTSTRAP_KEY,
    }


def test_tok_08_whatever_is_not_valid_is_answered_in_the_same_bytes(api: Api):
    answers = {name: ask(api, token, ADMIN) for name, token in not_valid(api).items()}
    [_] = {str(same_but_request_id(answer)) for answer in answers.values()}
    assert {(answer.status_code, answer.content) for answer in answers.values()} == {(200, INACTIVE)}


def test_tok_08_a_session_that_time_has_ended_is_answered_in_the_same_bytes(api: Api):
    alice = api.sign_in()
    api.clock.advance(1800)
    for token in (alice.token, alice.access_token(exp=SIGNED_IN_AT + 100_000)):
        assert ask(api, token, ADMIN).content == INACTIVE


def test_t_20_a_forged_token_is_not_active(api: Api):
    alice = api.sign_in()
    for name, make, _ in forgeries():
        secret = make(api, alice)["Authorization"].removeprefix("Bearer ")
        assert (name, ask(api, secret, ADMIN).content) == (name, INACTIVE)


# -- who may ask, and how


def test_nobody_asks_about_tokens_by_the_token_itself(api: Api):
    alice = api.sign_in()
    assert told(ask(api, alice.token, alice.bearer)) == (403, "insufficient-scope")
    assert told(api.post(PATH, data={"token": alice.token})) == (401, "unauthenticated")
    assert told(ask(api, alice.token, bearer("A" * 43))) == (401, "invalid-credential")


def test_what_strangers_show_a_service_does_not_lock_the_service_out(open_api: OpenApi):
    api = open_api(guess_limit=3)
    alice, key = api.sign_in(), bearer(api.key(Scope.TOKENS_INTROSPECT)[1])
    for number in range(20):
        assert ask(api, f"{number:A>43}", key).content == INACTIVE
    assert ask(api, alice.token, key).json()["active"]
    assert told(api.get("/api/auth/session", bearer("B" * 43))) == (401, "invalid-credential")


MALFORMED = {
    "nothing": b"",
    "no token": b"token_type_hint=access_token",
    "an empty token": b"token=",
    "a name without a value": b"token",
    "another name": b"Token=x",
    "the token twice": b"token=a&token=b",
    "the token twice, alike": b"token=a&token=a",
    "the token twice, disguised": b"token=a&%74oken=b",
    "the hint twice": b"token=a&token_type_hint=a&token_type_hint=b",
    "an empty pair": b"token=a&&x=b",
    "half an escape": b"token=%4",
    "no escape": b"token=%zz",
    "not UTF-8": b"token=\xff",
    "not UTF-8, escaped": b"token=%ff",
    "half a surrogate pair": b"token=%ed%a0%80",
    "JSON": b'{"token":"a"}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_form_that_could_be_read_in_two_ways_is_refused(shared_api: Api, body: bytes):
    assert told(shared_api.post(PATH, {**ADMIN, **FORM}, content=body)) == (400, "malformed-form")


def test_a_form_may_say_its_charset_and_come_in_any_case(api: Api):
    alice = api.sign_in()
    for media_type in (
        "application/x-www-form-urlencoded; charset=UTF-8",
        'Application/X-WWW-Form-URLencoded;charset="utf-8"',
    ):
        content = f"token={alice.token}".replace("A", "%41").encode()
        assert api.post(PATH, {**ADMIN, "Content-Type": media_type}, content=content).json()["active"]


@pytest.mark.parametrize(
    "media_type",
    [
        *("application/json", "multipart/form-data; boundary=x", "text/plain", ""),
        *("application/x-www-form-urlencoded; charset=latin-1", "application/x-www-form-urlencoded, text/plain"),
    ],
)
def test_only_a_form_is_read(shared_api: Api, media_type: str):
    answer = shared_api.post(PATH, {**ADMIN, "Content-Type": media_type}, content=b"token=x")
    assert told(answer) == (415, "unsupported-media-type")


def test_a_huge_form_is_refused(api: Api):
    assert told(ask(api, "a" * 17_000, ADMIN)) == (413, "body-too-large")
