"""Credentials, good and bad: what each is, how it is sent, and what it gets."""

import hmac
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.jwk import ECKey

from domain.session import Timeouts
from store.api_keys import Scope
from tests.api.client import (
    ADMIN,
    AUDIENCE,
    BOOTSTRAP_KEY,
    ISSUER,
    SIGNING_KEY,
    Api,
    SignedIn,
    access_token,
    bearer,
    by_cookie,
    by_hand,
    standing_claims,
)
from tests.clock import NOON

REALM = 'Bearer realm="session-ledger"'
Answer = tuple[int, str | None, str | None]
"""Status, kind of problem, challenge."""

OK = (200, None, None)
MALFORMED = (400, "invalid-credentials-form", f'{REALM}, error="invalid_request"')
DOUBLED = (400, "two-credentials", f'{REALM}, error="invalid_request"')
IN_URL = (400, "credential-in-url", f'{REALM}, error="invalid_request"')
MISSING = (401, "unauthenticated", REALM)
INVALID = (401, "invalid-credential", f'{REALM}, error="invalid_token"')
NO_USER = (403, "insufficient-scope", f'{REALM}, error="insufficient_scope"')

ALL = " ".join(Scope)
AN_ID = "6f1c7a52-93f4-4f0e-9d7b-0c6a7e1f2b3d"
STRANGER = ECKey.generate_key("P-256", {"kid": "ec"})


class Case(NamedTuple):
    """A credential: `headers(api, alice)` is what is sent, given a session that is good; `answer` is what it gets."""

    name: str
    headers: Callable[[Api, SignedIn], Any]
    answer: Answer


def accepted() -> list[Case]:
    """Each form of a good credential, and what the session check answers: keys and clients are nobody's session."""
    return [
        Case("the cookie", lambda _, a: a.by_cookie, OK),
        Case("the token", lambda _, a: a.bearer, OK),
        Case("an access token", lambda _, a: bearer(a.access_token()), OK),
        Case("an access token with scopes", lambda _, a: bearer(a.access_token(scope=ALL)), OK),
        Case("an access token without a client", lambda _, a: bearer(a.access_token(client_id=None)), OK),
        Case("an access token for several", lambda _, a: bearer(a.access_token(aud=["x", AUDIENCE])), OK),
        Case("an access token of a minute ahead", lambda _, a: bearer(a.access_token(iat=noon(60), nbf=noon(60))), OK),
        Case("an access token by hand", lambda _, a: bearer(forged(a)), OK),
        Case("the type in full", lambda _, a: bearer(forged(a, {"typ": "application/AT+JWT"})), OK),
        Case("no kid, but one key of the type", lambda _, a: bearer(forged(a, {"kid": None})), OK),
        Case(
            "pointers to keys, not followed",
            lambda _, a: bearer(forged(a, {"jku": "https://x", "x5u": "https://y"})),
            OK,
        ),
        Case("the scheme in lower case", lambda _, a: {"Authorization": f"bearer {a.token}"}, OK),
        Case("the scheme in upper case, two blanks", lambda _, a: {"Authorization": f"BEARER  {a.token}"}, OK),
        Case("the header in upper case", lambda _, a: {"AUTHORIZATION": f"Bearer {a.token}"}, OK),
        Case("among other cookies", lambda _, a: {"Cookie": f"a=b; __Host-sid={a.token}; c; =d; sid=x"}, OK),
        Case("on a second line of cookies", lambda _, a: [("Cookie", "a=b"), *a.by_cookie.items()], OK),
        Case("other cookies and the token", lambda _, a: {**a.bearer, "Cookie": "sid=x; a=b"}, OK),
        Case("an empty cookie and the token", lambda _, a: {**a.bearer, **by_cookie("")}, OK),
        Case("the first key", lambda _, a: ADMIN, NO_USER),
        Case("a key", lambda api, _: bearer(api.key(*Scope)[1]), NO_USER),
        Case("a key without scopes", lambda api, _: bearer(api.key()[1]), NO_USER),
        Case("a client of its own", lambda _, a: bearer(access_token(sub="web", scope=ALL)), NO_USER),
        Case("a client without scopes", lambda _, a: bearer(access_token(sub="web")), NO_USER),
    ]


def refused() -> list[Case]:
    """Each bad credential, and what every route answers. `alice` is needed by them, and none of them is hers."""
    return [*absent_or_malformed(), *doubled(), *not_valid(), *forgeries()]


def absent_or_malformed() -> list[Case]:
    return [
        Case("nothing", lambda _, a: {}, MISSING),
        Case("an empty cookie", lambda _, a: by_cookie(""), MISSING),
        Case("another cookie", lambda _, a: {"Cookie": f"sid={a.token}; __host-sid={a.token}; x{a.cookie}"}, MISSING),
        Case("basic", lambda _, a: {"Authorization": f"Basic {a.token}"}, MISSING),
        Case("no scheme", lambda _, a: {"Authorization": a.token}, MISSING),
        Case("nothing at all in the header", lambda _, a: {"Authorization": ""}, MISSING),
        Case("dpop", lambda _, a: {"Authorization": f"DPoP {a.token}"}, MISSING),
        Case("in headers of other names", lambda _, a: {"X-Api-Key": BOOTSTRAP_KEY, "X-Session": a.token}, MISSING),
        Case("for the proxy", lambda _, a: {"Proxy-Authorization": f"Bearer {a.token}"}, MISSING),
        Case("bearer of nothing", lambda _, a: {"Authorization": "Bearer"}, MALFORMED),
        Case("bearer of a blank", lambda _, a: {"Authorization": "Bearer   "}, MALFORMED),
        Case("two words", lambda _, a: {"Authorization": f"Bearer {a.token} {a.token}"}, MALFORMED),
        Case("a list", lambda _, a: {"Authorization": f"Bearer {a.token}, Bearer {a.token}"}, MALFORMED),
        Case("a tab", lambda _, a: {"Authorization": f"Bearer {a.token}\tx"}, MALFORMED),
        Case("beyond ASCII", lambda _, a: {"Authorization": "Bearer é".encode()}, MALFORMED),
        Case("a lone surrogate", lambda _, a: {"Authorization": b"Bearer \xed\xa0\x80"}, MALFORMED),
        Case("NUL", lambda _, a: {"Authorization": f"Bearer {a.token}\0".encode()}, MALFORMED),
        Case("nine kilobytes", lambda _, a: bearer("a" * 9000), MALFORMED),
    ]


def doubled() -> list[Case]:
    return [
        Case("cookie and bearer", lambda _, a: {**a.by_cookie, **a.bearer}, DOUBLED),
        Case("cookie and key", lambda _, a: {**a.by_cookie, **ADMIN}, DOUBLED),
        Case("cookie and access token", lambda _, a: {**a.by_cookie, **bearer(a.access_token())}, DOUBLED),
        Case("cookie and basic", lambda _, a: {**a.by_cookie, "Authorization": "Basic x"}, DOUBLED),
        Case("two bearers", lambda _, a: [*a.bearer.items(), *a.bearer.items()], DOUBLED),
        Case("bearer and key", lambda _, a: [*a.bearer.items(), *ADMIN.items()], DOUBLED),
        Case("key and access token", lambda _, a: [*ADMIN.items(), *bearer(a.access_token()).items()], DOUBLED),
        Case("basic and bearer", lambda _, a: [("Authorization", "Basic x"), *a.bearer.items()], DOUBLED),
        Case("two cookies", lambda _, a: {"Cookie": f"__Host-sid={a.token}; __Host-sid={a.token}"}, MALFORMED),
        Case("two cookie lines", lambda _, a: [*a.by_cookie.items(), *by_cookie("x").items()], MALFORMED),
    ]


def not_valid() -> list[Case]:
    """Well formed, and unknown, foreign, expired, revoked or in the wrong place."""
    return [
        Case("the session's id", lambda _, a: bearer(a.id), INVALID),
        Case("the session's id as cookie", lambda _, a: by_cookie(a.id), INVALID),
        Case("43 characters of the id", lambda _, a: by_cookie(a.id.replace("-", "") + "A" * 11), INVALID),
        Case("an unknown token", lambda _, a: bearer("A" * 43), INVALID),
        Case("an unknown cookie", lambda _, a: by_cookie("A" * 43), INVALID),
        Case("a token in another case", lambda _, a: bearer(a.token.swapcase()), INVALID),
        Case("a token and one more", lambda _, a: bearer(a.token + "A"), INVALID),
        Case("a token cut short", lambda _, a: bearer(a.token[:-1]), INVALID),
        Case("a quoted token", lambda _, a: by_cookie(f'"{a.token}"'), INVALID),
        Case("a token with padding", lambda _, a: bearer(a.token + "="), INVALID),
        Case("SQL", lambda _, a: by_cookie("'OR'1'='1"), INVALID),
        Case("a key as cookie", lambda _, a: by_cookie(BOOTSTRAP_KEY), INVALID),
        Case("an access token as cookie", lambda _, a: by_cookie(a.access_token()), INVALID),
        Case("an ended session", lambda api, _: ended(api).bearer, INVALID),
        Case("an ended session's cookie", lambda api, _: ended(api).by_cookie, INVALID),
        Case("an ended session's access token", lambda api, _: bearer(ended(api).access_token(scope=ALL)), INVALID),
        Case("an expired session", lambda api, _: expired(api).bearer, INVALID),
        Case("an expired session's cookie", lambda api, _: expired(api).by_cookie, INVALID),
        Case("an expired session's access token", lambda api, _: bearer(expired(api).access_token(scope=ALL)), INVALID),
        Case("a disabled user's session", lambda api, _: barred(api).bearer, INVALID),
        Case("a disabled user's cookie", lambda api, _: barred(api).by_cookie, INVALID),
        Case("a disabled user's access token", lambda api, _: bearer(barred(api).access_token(scope=ALL)), INVALID),
        Case("somebody else's sid", lambda _, a: bearer(a.access_token(sub="bob", scope=ALL)), INVALID),
        Case("the client as sub of a sid", lambda _, a: bearer(a.access_token(sub="web", scope=ALL)), INVALID),
        Case("an unknown sid", lambda _, a: bearer(a.access_token(sid=AN_ID)), INVALID),
        Case("a malformed sid", lambda _, a: bearer(a.access_token(sid="x")), INVALID),
        Case("the token as sid", lambda _, a: bearer(a.access_token(sid=a.token)), INVALID),
        Case("no sid but a user", lambda _, a: bearer(access_token(sub="alice", scope=ALL)), INVALID),
        Case("no sid and no client", lambda _, a: bearer(access_token(sub="web", client_id=None, scope=ALL)), INVALID),
        Case("an access token of another issuer", lambda _, a: bearer(a.access_token(iss="https://evil")), INVALID),
        Case("an issuer that begins alike", lambda _, a: bearer(a.access_token(iss=f"{ISSUER}.evil")), INVALID),
        Case("another audience", lambda _, a: bearer(a.access_token(aud="x", scope=ALL)), INVALID),
        Case("no audience", lambda _, a: bearer(a.access_token(aud=None)), INVALID),
        Case(EXPIRED, lambda _, a: bearer(a.access_token(exp=noon(), scope=ALL)), INVALID),
        Case("an access token for ever", lambda _, a: bearer(a.access_token(exp=None)), INVALID),
        Case("an access token of tomorrow", lambda _, a: bearer(a.access_token(nbf=noon(86_400))), INVALID),
        Case("an access token made tomorrow", lambda _, a: bearer(a.access_token(iat=noon(86_400))), INVALID),
        Case("another issuer's client", lambda _, a: bearer(client(iss="https://evil")), INVALID),
        Case("another audience's client", lambda _, a: bearer(client(aud="x")), INVALID),
        Case("a client's expired token", lambda _, a: bearer(client(exp=noon())), INVALID),
        Case("two dots", lambda _, a: bearer("a.b.c"), INVALID),
        Case("five parts", lambda _, a: bearer(f"{a.access_token()}.b.c"), INVALID),
        Case("an unknown key", lambda _, a: bearer("slk_" + "A" * 43), INVALID),
        Case("a revoked key", lambda api, _: bearer(revoked_key(api)), INVALID),
        Case("a key cut short", lambda api, _: bearer(api.key(*Scope)[1][:-1]), INVALID),
        Case("a key without its prefix", lambda api, _: bearer(api.key(*Scope)[1].removeprefix("slk_")), INVALID),
        Case("a session token with the prefix of a key", lambda _, a: bearer(f"slk_{a.token}"), INVALID),
        Case("the first key but for its case", lambda _, a: bearer(BOOTSTRAP_KEY.upper()), INVALID),
        Case("the first key cut short", lambda _, a: bearer(BOOTSTRAP_KEY[:-1]), INVALID),
    ]


EXPIRED = "an access token that has expired"
"""The one bad credential that still may do something: sign its own session out."""


def forgeries() -> list[Case]:
    """Access tokens that choose their algorithm, their key or its place, or were changed (TOK-02, T-20)."""
    headers = {
        "typ JWT": {"typ": "JWT"},
        "no typ": {"typ": None},
        "an id token": {"typ": "id+jwt"},
        "a logout token": {"typ": "logout+jwt"},
        "a security event": {"typ": "secevent+jwt"},
        "kid of another file": {"kid": "../../x"},
        "kid of nothing": {"kid": "/dev/null"},
        "kid in SQL": {"kid": "ec' UNION SELECT 'x' --"},
        "kid by URL": {"kid": "https://evil.example/jwks.json"},
        "kid and NUL": {"kid": "ec\0"},
        "kid of another type": {"kid": ["ec"]},
        "a kid unknown": {"kid": "unknown"},
        "crit of nothing known": {"crit": ["x"], "x": 1},
        "crit of exp": {"crit": ["exp"], "exp": 1},
        "an empty crit": {"crit": []},
        "unencoded": {"crit": ["b64"], "b64": False},
        "RS256 over ES256": {"alg": "RS256"},
        "EdDSA over ES256": {"alg": "EdDSA"},
        "ES384 over ES256": {"alg": "ES384"},
        "ES256K over ES256": {"alg": "ES256K"},
        "no alg": {"alg": None},
        "alg in lower case": {"alg": "es256"},
    }
    of_a_stranger = {
        "a stranger's": {},
        "a stranger's without kid": {"kid": None},
        "a stranger's jwk": {"jwk": STRANGER.as_dict(private=False)},
        "a stranger's jwk alone": {"jwk": STRANGER.as_dict(private=False), "kid": None},
        "a stranger's jku": {"jku": "https://evil.example/jwks.json"},
        "a stranger's x5u": {"x5u": "https://evil.example/chain.pem"},
        "a stranger's x5c": {"x5c": ["MIIB"]},
    }
    public_key = {
        "PEM": SIGNING_KEY.as_pem(private=False),
        "DER": SIGNING_KEY.as_der(private=False),
        "JWK": json.dumps(SIGNING_KEY.as_dict(private=False)).encode(),
        "nothing": b"",
    }
    unsigned = ("none", "None", "nOnE", "NONE", "")
    return [
        *(Case(name, lambda _, a, h=h: bearer(forged(a, h)), INVALID) for name, h in headers.items()),
        *(Case(n, lambda _, a, h=h: bearer(forged(a, h, by=STRANGER)), INVALID) for n, h in of_a_stranger.items()),
        *(Case(f"alg {alg!r}", lambda _, a, alg=alg: bearer(unsigned_by(a, alg)), INVALID) for alg in unsigned),
        *(
            Case(f"HS256 by {form}", lambda _, a, secret=secret: bearer(keyed(a, secret)), INVALID)
            for form, secret in public_key.items()
        ),
        Case("no signature", lambda _, a: bearer(forged(a).rpartition(".")[0] + "."), INVALID),
        Case("half a signature", lambda _, a: bearer(forged(a)[:-43]), INVALID),
        Case("a signature cut by a character", lambda _, a: bearer(forged(a)[:-1]), INVALID),
        Case("a signature and more", lambda _, a: bearer(forged(a) + "AA"), INVALID),
        Case("a signature of zeros", lambda _, a: bearer(forged(a).rpartition(".")[0] + "." + "A" * 86), INVALID),
        Case("one bit of the signature", lambda _, a: bearer(flipped(forged(a), -10)), INVALID),
        Case("one bit of the claims", lambda _, a: bearer(flipped(forged(a), 120)), INVALID),
        Case("other claims under a good signature", lambda _, a: bearer(spliced(forged(a), client())), INVALID),
    ]


# -- how they are made


def noon(plus_s: float = 0) -> float:
    return NOON.timestamp() + plus_s


def client(**claims: Any) -> str:
    return access_token(**{"sub": "web", "scope": ALL, **claims})


def ended(api: Api) -> SignedIn:
    dead = api.sign_in("dead")
    api.delete(f"/api/sessions/{dead.id}", dead.bearer)
    return dead


def expired(api: Api) -> SignedIn:
    """A session of one second, a second later."""
    ledger = api.service.ledger
    usual, ledger.limits = ledger.limits, replace(ledger.limits, normal=Timeouts(1, 1))
    gone = api.sign_in("gone")
    ledger.limits = usual
    api.clock.advance(1)
    return gone


def barred(api: Api) -> SignedIn:
    api.post("/api/users/barred/enable", ADMIN)
    person = api.sign_in("barred")
    api.post("/api/users/barred/disable", ADMIN)
    return person


def revoked_key(api: Api) -> str:
    key, secret = api.key(*Scope)
    assert api.get("/api/users/x/sessions", bearer(secret)).status_code == 200
    assert api.revoke_key(key)
    return secret


def forged(of: SignedIn, header: dict[str, Any] | None = None, *, by: ECKey = SIGNING_KEY) -> str:
    """The access token of a session with changes to its header, truly signed; None takes a member away."""
    return by_hand(_header(header or {}), _claims(of), lambda signing_input: _es256(by, signing_input))


def unsigned_by(of: SignedIn, alg: str) -> str:
    return by_hand(_header({"alg": alg}), _claims(of), lambda _: b"")


def keyed(of: SignedIn, secret: bytes) -> str:
    return by_hand(_header({"alg": "HS256"}), _claims(of), lambda text: hmac.digest(secret, text, "sha256"))


def flipped(token: str, place: int) -> str:
    at = place % len(token)
    other = "A" if token[at] != "A" else "B"
    return token[:at] + other + token[at + 1 :]


def spliced(token: str, other: str) -> str:
    """The claims of `other` in the place of its own."""
    header, _, signature = token.split(".")
    return ".".join((header, other.split(".")[1], signature))


def _header(changes: dict[str, Any]) -> dict[str, Any]:
    whole = {"alg": "ES256", "typ": "at+jwt", "kid": "ec", **changes}
    return {name: value for name, value in whole.items() if value is not None}


def _claims(of: SignedIn) -> dict[str, Any]:
    return {**standing_claims(), "sub": of.user_id, "sid": of.id, "scope": ALL}


def _es256(key: ECKey, signing_input: bytes) -> bytes:
    private_key = key.private_key
    assert private_key is not None
    r, s = decode_dss_signature(private_key.sign(signing_input, ECDSA(SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)
