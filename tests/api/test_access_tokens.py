"""Which tokens pass, and the many that do not (TOK-01, TOK-02, T-20)."""

import asyncio
import hmac
import json
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc import jws, jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from api.access_tokens import AccessTokens, Claims, InvalidAccessToken, UnverifiableAccessToken
from api.jwks import KeysUnavailable
from tests.api.client import by_hand

ISSUER, AUDIENCE = "https://id.example", "https://ledger.example"
NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
SESSION = UUID("6d1c1f5e-0d5f-4b57-9a51-1d7f6a0c9b11")
REGISTRY = JWSRegistry(algorithms=list(JWSRegistry.algorithms), strict_check_header=False)
REGISTRY.max_header_length = 100_000

RSA = RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
STRANGER = RSAKey.generate_key(2048, {"kid": "rsa"})
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    WEAK = RSAKey.generate_key(1024, {"kid": "weak"})
SECRET = OctKey.import_key("s" * 32, {"kid": "oct"})

CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "u-1",
    "client_id": "web",
    "exp": NOW.timestamp() + 600,
    "iat": NOW.timestamp(),
    "jti": "t-1",
    "sid": str(SESSION),
    "scope": "sessions profile",
}


def signed(
    changes: dict[str, Any] | None = None, *, key: Any = RSA, alg: str = "RS256", header: dict[str, Any] | None = None
) -> str:
    """A good token but for `changes` to claims and header; None takes a member away."""
    head = {"alg": alg, "typ": "at+jwt", "kid": key.kid, **(header or {})}
    claims = {**CLAIMS, **(changes or {})}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return jwt.encode(present(head), present(claims), key, registry=REGISTRY, default_type=None)


def present(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def by_rsa(signing_input: bytes) -> bytes:
    private_key = RSA.private_key
    assert private_key is not None
    return private_key.sign(signing_input, PKCS1v15(), SHA256())


def jwks(*keys: Any) -> bytes:
    return json.dumps({"keys": [key if isinstance(key, dict) else key.as_dict(private=False) for key in keys]}).encode()


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(RSA, EC, ED, SECRET, WEAK))
    return path


@pytest.fixture
def tokens(file: Path, clock: Clock) -> AccessTokens:
    return AccessTokens(ISSUER, AUDIENCE, str(file), clock)


def refusal(tokens: AccessTokens, token: str) -> str:
    with pytest.raises(InvalidAccessToken) as refused:
        tokens.verify(token)
    return refused.value.reason


@pytest.mark.parametrize(("alg", "key"), [("RS256", RSA), ("PS256", RSA), ("ES256", EC), ("EdDSA", ED)])
def test_a_good_token_of_each_algorithm_passes(tokens: AccessTokens, alg: str, key: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        claims = tokens.verify(signed(key=key, alg=alg))

    assert claims == Claims(
        issuer=ISSUER,
        subject="u-1",
        session_id=SESSION,
        client_id="web",
        scopes=frozenset({"sessions", "profile"}),
        issued_at=claims.issued_at,
        expires_at=NOW + timedelta(minutes=10),
        acr=None,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": [AUDIENCE, "https://other.example"]},
        {"iat": NOW.timestamp() + 60, "nbf": NOW.timestamp() + 60},
        {"exp": NOW.timestamp() + 0.5},
        {"iat": None, "jti": None},
        {"unknown": {"a": 1}},
    ],
)
def test_claims_within_the_rules_pass(tokens: AccessTokens, changes: dict[str, Any]) -> None:
    assert tokens.verify(signed(changes)).subject == "u-1"


@pytest.mark.parametrize(
    "header",
    [{"typ": "AT+JWT"}, {"typ": "application/at+jwt"}, {"nonce": "x"}, {"x5t": "x"}, {"jku": "https://evil.example"}],
)
def test_headers_within_the_rules_pass_and_unknown_ones_are_ignored(
    tokens: AccessTokens, header: dict[str, Any]
) -> None:
    assert tokens.verify(signed(header=header)).subject == "u-1"


def test_without_session_and_scopes_the_client_stands_for_itself(tokens: AccessTokens) -> None:
    claims = tokens.verify(signed({"sid": None, "scope": None, "sub": "svc", "client_id": "svc"}))

    assert (claims.session_id, claims.scopes, claims.subject, claims.client_id) == (None, frozenset(), "svc", "svc")


def test_a_missing_kid_means_the_only_key_of_the_type(tokens: AccessTokens) -> None:
    assert tokens.verify(signed(key=EC, alg="ES256", header={"kid": None})).subject == "u-1"


SOON = NOW.timestamp() + 61

BAD_CLAIMS: list[tuple[str, dict[str, Any]]] = [
    ("iss", {"iss": "https://evil.example"}),
    ("iss", {"iss": ISSUER + "/"}),
    ("iss", {"iss": [ISSUER]}),
    ("iss", {"iss": None}),
    ("aud", {"aud": "https://other.example"}),
    ("aud", {"aud": ["https://other.example"]}),
    ("aud", {"aud": AUDIENCE + "/more"}),
    ("aud", {"aud": {AUDIENCE: 1}}),
    ("aud", {"aud": []}),
    ("aud", {"aud": None}),
    ("sub", {"sub": None}),
    ("sub", {"sub": ""}),
    ("sub", {"sub": 7}),
    ("exp", {"exp": None}),
    ("exp", {"exp": NOW.timestamp()}),
    ("exp", {"exp": NOW.timestamp() - 1}),
    ("exp", {"exp": str(SOON)}),
    ("exp", {"exp": True}),
    ("exp", {"exp": 10**18}),
    ("exp", {"exp": -(10**18)}),
    ("nbf", {"nbf": SOON}),
    ("nbf", {"nbf": "soon"}),
    ("iat", {"iat": SOON}),
    ("iat", {"iat": {}}),
    ("iat", {"iat": True}),
    ("sid", {"sid": "not-a-uuid"}),
    ("sid", {"sid": ""}),
    ("sid", {"sid": 5}),
    ("sid", {"sid": [str(SESSION)]}),
    ("scope", {"scope": ["sessions"]}),
    ("scope", {"scope": {"sessions": True}}),
    ("client_id", {"client_id": 5}),
]


@pytest.mark.parametrize(("reason", "changes"), BAD_CLAIMS)
def test_a_claim_outside_the_rules_is_refused(tokens: AccessTokens, reason: str, changes: dict[str, Any]) -> None:
    assert refusal(tokens, signed(changes)) == reason


@pytest.mark.parametrize("member", ["exp", "sub", "sid", "scope"])
def test_null_is_not_absence(tokens: AccessTokens, member: str) -> None:
    head, payload = {"alg": "RS256", "typ": "at+jwt", "kid": "rsa"}, {**CLAIMS, member: None}

    assert refusal(tokens, jwt.encode(head, payload, RSA, registry=REGISTRY)) == member


def test_infinite_and_doubled_claims_are_refused(tokens: AccessTokens) -> None:
    assert refusal(tokens, signed({"exp": float("inf")})) == "signature or payload"


BAD_HEADERS: list[tuple[str, dict[str, Any]]] = [
    ("typ", {"typ": "JWT"}),
    ("typ", {"typ": None}),
    ("typ", {"typ": "id+jwt"}),
    ("typ", {"typ": "secevent+jwt"}),
    ("typ", {"typ": "logout+jwt"}),
    ("kid", {"kid": "unknown"}),
    ("kid", {"kid": "../../x"}),
    ("kid", {"kid": "' OR 1=1 --"}),
    ("kid", {"kid": "https://evil.example/jwks.json"}),
    ("kid", {"kid": ""}),
    ("kid", {"kid": "weak"}),
]


def test_what_the_issuer_never_signed_is_told_from_what_is_not_valid_now(tokens: AccessTokens) -> None:
    forged = signed()[:-4] + "AAAA"
    expired = signed({"exp": NOW.timestamp()})

    assert [kind(tokens, token) for token in (forged, expired)] == [UnverifiableAccessToken, InvalidAccessToken]


def kind(tokens: AccessTokens, token: str) -> type[InvalidAccessToken]:
    with pytest.raises(InvalidAccessToken) as refused:
        tokens.verify(token)
    return refused.type


@pytest.mark.parametrize(("reason", "header"), BAD_HEADERS)
def test_a_header_outside_the_rules_is_refused(tokens: AccessTokens, reason: str, header: dict[str, Any]) -> None:
    assert refusal(tokens, signed(header=header)) == reason


def test_a_missing_kid_does_not_choose_among_several_keys(file: Path, clock: Clock) -> None:
    file.write_bytes(jwks(RSA, RSAKey.generate_key(2048, {"kid": "second"})))

    assert refusal(AccessTokens(ISSUER, AUDIENCE, str(file), clock), signed(header={"kid": None})) == "kid"


@pytest.mark.parametrize(
    "header", [{"crit": ["exp"], "exp": 1}, {"crit": ["b64"], "b64": True}, {"crit": []}, {"crit": None}, {"b64": True}]
)
def test_an_extension_that_must_be_understood_is_refused(tokens: AccessTokens, header: dict[str, Any]) -> None:
    head = {"alg": "RS256", "typ": "at+jwt", "kid": "rsa", **header}

    assert refusal(tokens, by_hand(head, CLAIMS, by_rsa)) == "crit"


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"jwk": STRANGER.as_dict(private=False)},
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "https://evil.example/chain.pem"},
        {"x5c": ["MIIB"]},
    ],
)
def test_a_key_that_the_token_brings_is_not_used(tokens: AccessTokens, header: dict[str, Any]) -> None:
    assert refusal(tokens, signed(key=STRANGER, header=header)) == "signature or payload"


@pytest.mark.parametrize(
    "alg", ["HS256", "HS384", "RS384", "RS512", "PS384", "ES384", "ES256K", "Ed448", "dir", "RSA1_5"]
)
def test_other_algorithms_are_refused(tokens: AccessTokens, alg: str) -> None:
    assert refusal(tokens, by_hand({"alg": alg, "typ": "at+jwt", "kid": "rsa"}, CLAIMS)) == "alg"


@pytest.mark.parametrize("alg", ["none", "nOnE", "NONE", "", None, 1, ["RS256"], {"RS256": 1}])
def test_unsigned_tokens_are_refused(tokens: AccessTokens, alg: Any) -> None:
    assert refusal(tokens, by_hand({"alg": alg, "typ": "at+jwt"}, CLAIMS, lambda _: b"")) == "alg"


@pytest.mark.parametrize(
    "secret", [RSA.as_pem(private=False), RSA.as_der(private=False), jwks(RSA)], ids=["PEM", "DER", "JWKS"]
)
def test_a_public_key_is_no_shared_secret(tokens: AccessTokens, secret: bytes) -> None:
    def by_hmac(signing_input: bytes) -> bytes:
        return hmac.digest(secret, signing_input, "sha256")

    assert refusal(tokens, by_hand({"alg": "HS256", "typ": "at+jwt", "kid": "rsa"}, CLAIMS, by_hmac)) == "alg"


@pytest.mark.parametrize(
    ("alg", "kid"), [("ES256", "rsa"), ("EdDSA", "rsa"), ("RS256", "ec"), ("EdDSA", "ec"), ("RS256", "oct")]
)
def test_a_key_serves_its_own_type_only(tokens: AccessTokens, alg: str, kid: str) -> None:
    assert refusal(tokens, by_hand({"alg": alg, "typ": "at+jwt", "kid": kid}, CLAIMS)) == "kid"


def test_a_key_that_names_its_algorithm_serves_no_other(file: Path, clock: Clock) -> None:
    file.write_bytes(jwks({**RSA.as_dict(private=False), "alg": "RS256"}))
    tokens = AccessTokens(ISSUER, AUDIENCE, str(file), clock)

    assert tokens.verify(signed()).subject == "u-1"
    assert refusal(tokens, signed(alg="PS256")) == "signature or payload"


def test_every_changed_character_of_a_token_is_noticed(tokens: AccessTokens) -> None:
    token = signed(key=ED, alg="EdDSA")
    for place in range(0, len(token), 7):
        other = "A" if token[place] != "A" else "B"
        refusal(tokens, token[:place] + other + token[place + 1 :])


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "é.é.é",
        "\ud800..",
        "e30.e30.",
        "bnVsbA.e30.x",
        "WyJhbGciXQ.e30.x",
        "=.=.=",
        " . . ",
    ],
)
def test_garbage_is_refused(tokens: AccessTokens, garbage: str) -> None:
    refusal(tokens, garbage)


@pytest.mark.parametrize("tail", [".", ".x", "\n", " ", "=", "\x00"])
def test_nothing_may_follow_a_token(tokens: AccessTokens, tail: str) -> None:
    refusal(tokens, signed() + tail)
    refusal(tokens, tail + signed())


def test_a_token_over_8_kib_is_refused(tokens: AccessTokens) -> None:
    assert refusal(tokens, signed({"extra": "x" * 8_000})) == "size"
    assert tokens.verify(signed({"extra": "x" * 4_000})).subject == "u-1"


@pytest.mark.parametrize("payload", [[], "text", None, 7])
def test_a_payload_that_is_no_object_is_refused(tokens: AccessTokens, payload: Any) -> None:
    head = {"alg": "RS256", "typ": "at+jwt", "kid": "rsa"}
    assert refusal(tokens, jws.serialize_compact(head, json.dumps(payload), RSA)) == "payload"


def test_a_deeply_nested_payload_is_refused(tokens: AccessTokens) -> None:
    head = {"alg": "RS256", "typ": "at+jwt", "kid": "rsa"}
    assert refusal(tokens, jws.serialize_compact(head, b"[" * 5_000, RSA)) == "signature or payload"


def test_time_is_that_of_the_ledgers_clock(tokens: AccessTokens, clock: Clock) -> None:
    token = signed()
    clock.now += timedelta(minutes=10) - timedelta(microseconds=1)
    tokens.verify(token)

    clock.now += timedelta(microseconds=1)
    assert refusal(tokens, token) == "exp"


class TestKeysInAFile:
    @pytest.mark.parametrize(
        "content",
        [
            None,
            b"",
            b"{}",
            b"[]",
            b'{"keys":{}}',
            b'{"keys":[]}',
            b'{"keys":[1,null,{},{"kty":"RSA"},{"kty":"EC","crv":"P-256","x":1,"y":2},{"kty":5,"crv":[]}]}',
            jwks(SECRET, WEAK),
            jwks({**RSA.as_dict(private=False), "use": "enc"}),
            jwks(ECKey.generate_key("P-384"), OKPKey.generate_key("X25519"), OKPKey.generate_key("Ed448")),
        ],
    )
    def test_a_file_without_a_usable_key_is_an_error_that_names_it(
        self, tmp_path: Path, clock: Clock, content: bytes | None
    ) -> None:
        path = tmp_path / "jwks.json"
        if content is not None:
            path.write_bytes(content)

        with pytest.raises(ValueError, match=r"jwks\.json"):
            AccessTokens(ISSUER, AUDIENCE, str(path), clock)

    def test_a_changed_file_is_read_again_after_a_second(self, tokens: AccessTokens, file: Path, clock: Clock) -> None:
        asyncio.run(tokens.refresh_if_needed())
        new = ECKey.generate_key("P-256", {"kid": "new"})
        file.write_bytes(jwks(new))

        token = signed(key=new, alg="ES256")
        asyncio.run(tokens.refresh_if_needed(token))
        assert refusal(tokens, token) == "kid"
        clock.now += timedelta(seconds=1)
        asyncio.run(tokens.refresh_if_needed(token))
        assert tokens.verify(token).subject == "u-1"
        assert refusal(tokens, signed()) == "kid"

    def test_a_file_that_breaks_later_leaves_the_old_keys(
        self, tokens: AccessTokens, file: Path, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        file.write_text("{")
        clock.now += timedelta(seconds=1)
        asyncio.run(tokens.refresh_if_needed())

        assert tokens.verify(signed()).subject == "u-1"
        assert "keys not loaded" in caplog.text


class Issuer:
    """A server of keys on loopback that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked, self.status, self.body = 0, 200, jwks(RSA)
        self.headers: dict[str, str] = {}
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                self.send_response(200 if self.path == "/elsewhere" else issuer.status)
                for name, value in issuer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(issuer.body)

            def log_message(self, format: str, *args: Any) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks.json"


@pytest.fixture
def issuer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    issuer = Issuer()
    thread = threading.Thread(target=issuer.server.serve_forever, args=(0.01,))
    thread.start()
    yield issuer
    issuer.server.shutdown()
    thread.join()
    issuer.server.server_close()


@pytest.fixture
def remote(issuer: Issuer, clock: Clock) -> AccessTokens:
    return AccessTokens(ISSUER, AUDIENCE, issuer.url, clock)


class TestKeysBehindAUrl:
    def test_they_are_fetched_once_for_many_tokens(self, remote: AccessTokens, issuer: Issuer) -> None:
        async def verify() -> None:
            await asyncio.gather(*(remote.refresh_if_needed(signed()) for _ in range(20)))

        asyncio.run(verify())
        assert remote.verify(signed()).subject == "u-1"
        assert issuer.asked == 1

    def test_before_they_are_there_nothing_is_verified(self, remote: AccessTokens) -> None:
        with pytest.raises(KeysUnavailable) as unavailable:
            remote.verify(signed())
        assert (unavailable.value.status, unavailable.value.kind) == (503, "keys-unavailable")

    def test_an_unknown_kid_fetches_again_at_most_every_30_seconds(
        self, remote: AccessTokens, issuer: Issuer, clock: Clock
    ) -> None:
        new = ECKey.generate_key("P-256", {"kid": "new"})
        token = signed(key=new, alg="ES256")
        asyncio.run(remote.refresh_if_needed())
        issuer.body = jwks(RSA, new)

        for _ in range(5):
            asyncio.run(remote.refresh_if_needed(token))
        assert (issuer.asked, refusal(remote, token)) == (1, "kid")
        clock.now += timedelta(seconds=30)
        for _ in range(5):
            asyncio.run(remote.refresh_if_needed(token))
        assert (issuer.asked, remote.verify(token).subject) == (2, "u-1")

    def test_a_key_that_the_issuer_took_away_is_gone_after_ten_minutes(
        self, remote: AccessTokens, issuer: Issuer, clock: Clock
    ) -> None:
        asyncio.run(remote.refresh_if_needed())
        issuer.body = jwks(EC)
        clock.now += timedelta(minutes=10)
        asyncio.run(remote.refresh_if_needed(signed()))

        assert refusal(remote, signed({"exp": clock.now.timestamp() + 60})) == "kid"

    @pytest.mark.parametrize(
        ("status", "headers", "body"),
        [
            (500, {}, b""),
            (200, {}, b"<html>"),
            (200, {}, b'{"keys":[]}'),
            (200, {}, b" " * 1_100_000 + jwks(RSA)),
            (302, {"Location": "/elsewhere"}, jwks(RSA)),
            (200, {"Content-Length": "999"}, jwks(RSA)[:-5]),
        ],
    )
    def test_an_answer_without_keys_fails_closed(
        self, remote: AccessTokens, issuer: Issuer, status: int, headers: dict[str, str], body: bytes
    ) -> None:
        issuer.status, issuer.headers, issuer.body = status, headers, body
        asyncio.run(remote.refresh_if_needed())

        with pytest.raises(KeysUnavailable):
            remote.verify(signed())

    def test_an_outage_later_leaves_the_old_keys(self, remote: AccessTokens, issuer: Issuer, clock: Clock) -> None:
        asyncio.run(remote.refresh_if_needed())
        issuer.status = 503
        clock.now += timedelta(minutes=11)
        asyncio.run(remote.refresh_if_needed(signed()))

        assert issuer.asked == 2
        assert remote.verify(signed({"exp": clock.now.timestamp() + 60})).subject == "u-1"

    def test_a_slow_issuer_does_not_block_the_loop(
        self, remote: AccessTokens, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("api.access_tokens.FETCH_TIMEOUT", 0.1)
        issuer.server.RequestHandlerClass.do_GET = lambda self: threading.Event().wait(0.4)  # type: ignore[attr-defined]

        async def turns_of_the_loop() -> int:
            refresh, turns = asyncio.ensure_future(remote.refresh_if_needed()), 0
            while not refresh.done():
                await asyncio.sleep(0.005)
                turns += 1
            return turns

        assert asyncio.run(turns_of_the_loop()) >= 5
        with pytest.raises(KeysUnavailable):
            remote.verify(signed())
