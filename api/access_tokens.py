"""Access tokens (JWT, RFC 9068) of one trusted issuer: design D13, TOK-01, TOK-02, T-20.

A verified token says who asks. Whether its session is still active only the ledger knows (TOK-05).
"""

import asyncio
import http.client
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64decode

from api.body import MalformedJson, parse_json
from api.jwks import FETCH_TIMEOUT, key_set

MAX_TOKEN = 8 * 1024
LEEWAY = timedelta(seconds=60)  # for `nbf` and `iat` only (T-18); `exp` has none

# What signs, and with which type of key: never a shared secret, never `none` (RFC 8725 §3.1).
ALGORITHMS: Mapping[str, str] = {"RS256": "RSA", "PS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
TYPES = frozenset({"at+jwt", "application/at+jwt"})

_log = logging.getLogger("ledger.access_tokens")


class InvalidAccessToken(Exception):
    """The token is not from our issuer, not for us, or not valid now; `reason` is for our logs."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnverifiableAccessToken(InvalidAccessToken):
    """Nothing shows that our issuer ever made this token, unlike one that has expired."""


@dataclass(frozen=True)
class Claims:
    """What a verified token says; without `session_id` it stands for the client itself."""

    issuer: str
    subject: str
    session_id: UUID | None
    client_id: str | None
    scopes: frozenset[str]
    issued_at: datetime | None
    expires_at: datetime
    acr: str | None


class AccessTokens:
    """Verifies the tokens of `issuer` for `audience` with the keys at `jwks`, a file or an http(s) URL.

    Raises ValueError, which names the file, when it is unreadable or has no usable key. Keys change only in
    `refresh_if_needed`: await it at the start and before each `verify`.
    """

    def __init__(self, issuer: str, audience: str, jwks: str, clock: Callable[[], datetime]) -> None:
        self._issuer, self._audience, self._clock = issuer, audience, clock
        self._keys = key_set(jwks)
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

    def verify(self, token: str, *, may_be_expired: bool = False) -> Claims:
        """The claims of a token that is valid now, or was. Raises InvalidAccessToken or KeysUnavailable."""
        try:
            claims = self._signed(token)
        except InvalidAccessToken as error:
            raise UnverifiableAccessToken(error.reason) from None
        return self._judged(claims, may_be_expired)

    def _signed(self, token: str) -> Mapping[str, Any]:
        """What one of the issuer's keys has signed."""
        header = _header(token)
        key = self._keys.find(header.get("kid"), ALGORITHMS[header["alg"]])
        if key is None:
            raise InvalidAccessToken("kid")
        try:
            claims = parse_json(jws.deserialize_compact(token, key, registry=_REGISTRY).payload)
        except (JoseError, MalformedJson):
            raise InvalidAccessToken("signature or payload") from None
        _require(isinstance(claims, dict), "payload")
        return dict(claims)

    def _judged(self, claims: Mapping[str, Any], may_be_expired: bool) -> Claims:
        audience = claims.get("aud")
        _require(claims.get("iss") == self._issuer, "iss")
        _require(self._audience in (audience if isinstance(audience, list) else [audience]), "aud")
        return Claims(
            issuer=self._issuer,
            subject=_text(claims, "sub"),
            session_id=_session_id(claims),
            client_id=_text(claims, "client_id") if "client_id" in claims else None,
            scopes=frozenset(_text(claims, "scope").split() if "scope" in claims else ()),
            expires_at=_expiry(claims, self._clock(), may_be_expired),
            issued_at=_moment(claims, "iat") if "iat" in claims else None,
            acr=acr if isinstance(acr := claims.get("acr"), str) else None,
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


def _expiry(claims: Mapping[str, Any], now: datetime, may_be_past: bool) -> datetime:
    """When the token ends; it must be alive now (RFC 9068 §4, RFC 7519 §4.1.4)."""
    expires_at = _moment(claims, "exp")
    _require(may_be_past or now < expires_at, "exp")
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
