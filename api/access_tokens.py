"""Access tokens (JWT, RFC 9068) of one trusted issuer: design D13, TOK-01, TOK-02, T-20.

A verified token says who asks. Whether its session is still active only the ledger knows (TOK-05).
"""

import asyncio
import http.client
import logging
import math
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from joserfc import jwk, jws
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry
from joserfc.util import base64_to_int, urlsafe_b64decode

from api.body import MalformedJson, parse_json
from api.errors import Problem

MAX_TOKEN = 8 * 1024
LEEWAY = timedelta(seconds=60)  # for `nbf` and `iat` only (T-18); `exp` has none

# What signs, and with which type of key: never a shared secret, never `none` (RFC 8725 §3.1).
ALGORITHMS: Mapping[str, str] = {"RS256": "RSA", "PS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
TYPES = frozenset({"at+jwt", "application/at+jwt"})

FETCH_TIMEOUT = 5.0
MAX_JWKS = 1024 * 1024

_log = logging.getLogger("ledger.access_tokens")
_never = datetime.min.replace(tzinfo=UTC)


class InvalidAccessToken(Exception):
    """The token is not from our issuer, not for us, or not valid now; `reason` is for our logs."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class KeysUnavailable(Problem):
    """The issuer's keys could not be fetched yet, so nothing can be verified: refused, never assumed valid (T-26)."""

    def __init__(self) -> None:
        super().__init__("keys-unavailable", "The keys that access tokens are verified with cannot be fetched.")


@dataclass(frozen=True)
class Claims:
    """What a verified token says; without `session_id` it stands for the client itself."""

    subject: str
    session_id: UUID | None
    client_id: str | None
    scopes: frozenset[str]
    expires_at: datetime


class AccessTokens:
    """Verifies the tokens of `issuer` for `audience` with the keys at `jwks`, a file or an http(s) URL.

    Raises ValueError, which names the file, when it is unreadable or has no usable key. Keys change only in
    `refresh_if_needed`: await it at the start and before each `verify`.
    """

    def __init__(self, issuer: str, audience: str, jwks: str, clock: Callable[[], datetime]) -> None:
        self._issuer, self._audience, self._clock = issuer, audience, clock
        self._keys = _UrlKeys(jwks) if jwks.startswith(("http://", "https://")) else _FileKeys(jwks)
        self._turn = asyncio.Lock()

    async def refresh_if_needed(self, token: str | None = None) -> None:
        """Load the keys again, off the event loop, when they are old or `token` names one that is unknown."""
        unknown = token is not None and not self._keys.knows(_kid(token))
        if not self._keys.due(self._clock(), unknown) and not (unknown and self._turn.locked()):
            return
        async with self._turn:
            if self._keys.due(self._clock(), unknown):
                await self._load()

    async def _load(self) -> None:
        self._keys.looked_at = self._clock()
        try:
            await asyncio.wait_for(asyncio.to_thread(self._keys.load), FETCH_TIMEOUT)
            self._keys.loaded_at = self._clock()
        except (OSError, ValueError, http.client.HTTPException) as error:
            _log.error("keys not loaded, the old ones stay: %s", error)

    def verify(self, token: str) -> Claims:
        """The claims of a token that is valid now. Raises InvalidAccessToken or KeysUnavailable."""
        header = _header(token)
        key = self._keys.find(header.get("kid"), ALGORITHMS[header["alg"]])
        try:
            claims = parse_json(jws.deserialize_compact(token, key, registry=_REGISTRY).payload)
        except (JoseError, MalformedJson):
            raise InvalidAccessToken("signature or payload") from None
        _require(isinstance(claims, dict), "payload")
        return self._judged(claims)

    def _judged(self, claims: Mapping[str, Any]) -> Claims:
        audience = claims.get("aud")
        _require(claims.get("iss") == self._issuer, "iss")
        _require(self._audience in (audience if isinstance(audience, list) else [audience]), "aud")
        return Claims(
            subject=_text(claims, "sub"),
            session_id=_session_id(claims),
            client_id=_text(claims, "client_id") if "client_id" in claims else None,
            scopes=frozenset(_text(claims, "scope").split() if "scope" in claims else ()),
            expires_at=_expiry(claims, self._clock()),
        )


def _header(token: str) -> dict[str, Any]:
    """The header, if it is one that may be believed so far; keys that it brings or points to are never looked at.

    No extension is understood here, so every `crit` is refused (RFC 7515 §4.1.11).
    """
    _require(len(token) <= MAX_TOKEN, "size")
    try:
        header = parse_json(urlsafe_b64decode(token.partition(".")[0].encode("ascii")))
    except ValueError:
        raise InvalidAccessToken("header") from None
    _require(isinstance(header, dict), "header")
    _require(isinstance(header.get("alg"), str) and header["alg"] in ALGORITHMS, "alg")
    _require(isinstance(header.get("typ"), str) and header["typ"].lower() in TYPES, "typ")
    _require(isinstance(header.get("kid", ""), str), "kid")
    _require("crit" not in header and "b64" not in header, "crit")
    return dict(header)


def _kid(token: str) -> str | None:
    try:
        return _header(token).get("kid")
    except InvalidAccessToken:
        return None


def _session_id(claims: Mapping[str, Any]) -> UUID | None:
    if "sid" not in claims:
        return None
    try:
        return UUID(_text(claims, "sid"))
    except ValueError:
        raise InvalidAccessToken("sid") from None


def _expiry(claims: Mapping[str, Any], now: datetime) -> datetime:
    """When the token ends; it must be alive now (RFC 9068 §4, RFC 7519 §4.1.4)."""
    expires_at = _moment(claims, "exp")
    _require(now < expires_at, "exp")
    for name in ("nbf", "iat"):
        _require(name not in claims or _moment(claims, name) <= now + LEEWAY, name)
    return expires_at


def _moment(claims: Mapping[str, Any], name: str) -> datetime:
    seconds = claims.get(name)
    _require(isinstance(seconds, int | float) and not isinstance(seconds, bool) and math.isfinite(seconds), name)
    try:
        return datetime.fromtimestamp(float(seconds or 0), UTC)
    except (OverflowError, ValueError, OSError):
        raise InvalidAccessToken(name) from None


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    _require(isinstance(value, str) and value != "", name)
    return str(value)


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise InvalidAccessToken(reason)


class _Registry(JWSRegistry):
    """joserfc's registry without its warning, on every token, that `EdDSA` has a newer name (RFC 9864)."""

    def get_alg(self, name: str) -> Any:
        return self.algorithms[name]


_REGISTRY = _Registry(strict_check_header=False)  # unknown header parameters are ignored (RFC 7515 §4)


class _Keys:
    """The issuer's usable keys by key id and type, and when to look for new ones."""

    max_age: timedelta
    patience: timedelta  # at least so long between two looks

    def __init__(self, place: str) -> None:
        self._place = place
        self._keys: dict[tuple[str | None, str], jwk.Key] = {}
        self.looked_at = self.loaded_at = _never

    def load(self) -> None:
        raise NotImplementedError

    def due(self, now: datetime, unknown: bool) -> bool:
        return now - self.looked_at >= self.patience and (unknown or now - self.loaded_at >= self.max_age)

    def knows(self, kid: str | None) -> bool:
        return kid is None or any(kid == known for known, _ in self._keys)

    def find(self, kid: str | None, key_type: str) -> jwk.Key:
        """The key of this id; without an id, the only one of the type."""
        if not self._keys:
            raise KeysUnavailable
        of_type = [key for (known, kind), key in self._keys.items() if kind == key_type and kid in (known, None)]
        _require(len(of_type) == 1, "kid")
        return of_type[0]


class _FileKeys(_Keys):
    """Keys in a file, read again within a second after it changed."""

    max_age = patience = timedelta(seconds=1)

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self._version: tuple[int, int, int] | None = None
        try:
            self.load()
        except (OSError, ValueError) as error:
            raise ValueError(f"JWKS file {place}: {error}") from error

    def load(self) -> None:
        file = Path(self._place)
        stat = file.stat()
        version = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if version != self._version:
            self._keys = _usable_keys(file.read_bytes())
            self._version = version


class _UrlKeys(_Keys):
    """Keys behind a URL: fetched at the start, for an unknown key id, and every ten minutes so that removed ones go."""

    max_age, patience = timedelta(minutes=10), timedelta(seconds=30)

    def load(self) -> None:
        opener = urllib.request.build_opener(_NoRedirects)
        with opener.open(self._place, timeout=FETCH_TIMEOUT) as response:
            self._keys = _usable_keys(response.read(MAX_JWKS + 1))


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The operator named the place of the keys; nobody else moves it, least of all from https to http."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _usable_keys(document: bytes) -> dict[tuple[str | None, str], jwk.Key]:
    """Raises ValueError when there is none. Keys that cannot be used are skipped (RFC 7517 §5)."""
    if len(document) > MAX_JWKS:
        raise ValueError(f"more than {MAX_JWKS} bytes")
    jwks = parse_json(document)
    entries = jwks.get("keys") if isinstance(jwks, dict) else None
    keys = [_usable_key(entry) for entry in entries] if isinstance(entries, list) else []
    usable = {(key.kid, key.key_type): key for key in keys if key is not None}
    if not usable:
        raise ValueError("no usable key")
    return usable


def _usable_key(entry: Any) -> jwk.Key | None:
    try:
        return jwk.import_key(entry) if _is_fit(entry) else None
    except Exception:  # whatever is wrong with one entry, the others stay usable
        return None


def _is_fit(entry: Mapping[str, Any]) -> bool:
    """A key that verifies signatures of `ALGORITHMS`: P-256, Ed25519, or RSA of at least 2048 bits (TOK-07)."""
    if entry.get("use", "sig") != "sig":
        return False
    if entry["kty"] == "RSA":
        return base64_to_int(entry["n"]).bit_length() >= 2048
    return (entry["kty"], entry["crv"]) in {("EC", "P-256"), ("OKP", "Ed25519")}
