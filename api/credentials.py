"""Who is calling: one function reads cookie and `Authorization`, and tells credentials apart by their form (D13)."""

import base64
import hmac
import os
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, NamedTuple
from uuid import UUID

from fastapi import Depends
from starlette.datastructures import Headers, State
from starlette.requests import Request as HttpRequest
from starlette.types import Scope as HttpScope

from api.access_tokens import AccessTokens, Claims, InvalidAccessToken, UnverifiableAccessToken
from api.errors import Problem
from api.guesses import UnknownCredential
from api.names import may_be_recorded
from api.service import durable
from domain.errors import LedgerError
from domain.ledger import Request, SessionLedger
from projections.api_keys import ApiKeys
from projections.session_views import SessionQueries, SessionView
from store.api_keys import PREFIX, Scope, digest
from store.reads import Reads

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
PARTITION = b"\x00"
_SESSION_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
_BEARER_TOKEN = re.compile(r"[!-~]{1,8192}")


class Caller(NamedTuple):
    """A credential that is valid now: the session behind it, if any, and what it may do, as `actor`."""

    session: SessionView | None
    scopes: frozenset[str] = frozenset()
    actor: str = "self"
    client_id: str | None = None
    by_cookie: bool = False


class Token(NamedTuple):
    """A token that is valid now: its session, if it has one, and what a JWT says of itself."""

    session: SessionView | None
    claims: Claims | None


class SignedIn(NamedTuple):
    """A user's own request, by his active session."""

    session: SessionView
    by_cookie: bool
    request: Request

    @property
    def name(self) -> str:
        """As events name users."""
        return f"user:{self.session.stream}"


class Credentials:
    """Resolves the credential of a request. Anything that is not certainly valid is refused."""

    def __init__(
        self,
        sessions: SessionQueries,
        reads: Reads,
        tokens: AccessTokens | None,
        bootstrap_key: str | None,
        cookie_name: str,
    ) -> None:
        self._sessions = sessions
        self._keys = ApiKeys(reads)
        self._tokens = tokens
        self._bootstrap = digest(bootstrap_key) if bootstrap_key else None
        self._cookie_name = cookie_name

    async def caller(self, scope: HttpScope, *, signing_out: bool = False) -> Caller:
        """Raises 400 for malformed or doubled, 401 for missing or invalid, 403 for cross-site credentials.

        To sign out, an access token that has expired still names the session to end.
        """
        cookie, bearer = self.present(scope)
        if cookie:
            refuse_cross_site(scope)
            return await self._by_session_token(cookie, by_cookie=True)
        if bearer:
            return await self._by_bearer(bearer, signing_out)
        raise Problem("unauthenticated", "Send a session cookie or an Authorization header.")

    def present(self, scope: HttpScope) -> tuple[str | None, str | None]:
        """The cookie and the bearer token as they were sent; not both (WEB-05), none twice."""
        cookies = [value for name, value in scope["headers"] if name == b"cookie"]
        authorizations = [value for name, value in scope["headers"] if name == b"authorization"]
        cookie = _cookie(cookies, self._cookie_name) if cookies else None
        if cookie and authorizations:
            raise Problem("two-credentials", "Send a cookie or an Authorization header, not both.")
        return cookie, _bearer(authorizations) if authorizations else None

    async def token(self, presented: str) -> Token | None:
        """What a token that somebody was shown is good for; None when it is not valid, or is no token but a key."""
        if not _BEARER_TOKEN.fullmatch(presented):
            return None
        try:
            if presented.count(".") == 2:
                claims, session = await self._valid_access_token(presented)
                return Token(session, claims)
            return Token(await self._valid_session(presented), None)
        except Problem as problem:
            if problem.kind == "invalid-credential":
                return None
            raise

    async def _by_bearer(self, bearer: str, signing_out: bool) -> Caller:
        if self._bootstrap and hmac.compare_digest(digest(bearer), self._bootstrap):
            return Caller(None, frozenset(Scope), actor="key:bootstrap")
        if bearer.startswith(PREFIX):
            return await self._by_api_key(bearer)
        if bearer.count(".") == 2:
            return await self._by_access_token(bearer, signing_out)
        return await self._by_session_token(bearer, by_cookie=False)

    async def _by_session_token(self, token: str, *, by_cookie: bool) -> Caller:
        return Caller(await self._valid_session(token), by_cookie=by_cookie)

    async def _valid_session(self, token: str) -> SessionView:
        """Looked up by digest, so the time it takes tells nothing about the secret (T-12)."""
        session = await self._sessions.by_token(digest(token)) if _SESSION_TOKEN.fullmatch(token) else None
        if session is None:
            raise UnknownCredential("This session is not active.")
        if session.end:
            raise Problem("invalid-credential", "This session is not active.")
        return session

    async def _by_api_key(self, secret: str) -> Caller:
        key = await self._keys.find(secret)
        if key is None:
            raise UnknownCredential("This API key is unknown or revoked.")
        if key.revoked_at is not None:
            raise Problem("invalid-credential", "This API key is unknown or revoked.")
        return Caller(None, key.scopes, actor=f"key:{key.key_id}")

    async def _by_access_token(self, token: str, signing_out: bool) -> Caller:
        claims, session = await self._valid_access_token(token, may_be_expired=signing_out)
        if session is None:
            return Caller(None, claims.scopes, client_id=claims.client_id)
        return Caller(session, claims.scopes, actor=f"user:{session.stream}")

    async def _valid_access_token(
        self, token: str, *, may_be_expired: bool = False
    ) -> tuple[Claims, SessionView | None]:
        claims = await self._verified(token, may_be_expired)
        if claims.session_id is None:
            if claims.client_id is None or claims.subject != claims.client_id:
                raise Problem("invalid-credential", "A token without a session must be a client's own.")
            if not may_be_recorded(claims.client_id):
                raise Problem("invalid-credential", "The client has no name that may be recorded.")
            return claims, None
        session = await self._sessions.by_id(claims.session_id)
        if session is None or session.end or session.user_id != claims.subject:
            raise Problem("invalid-credential", "The session of this token is not active.")
        return claims, session

    async def _verified(self, token: str, may_be_expired: bool) -> Claims:
        if self._tokens is None:
            raise UnknownCredential("No issuer of access tokens is configured here.")
        await self._tokens.refresh_if_needed(token)
        try:
            return self._tokens.verify(token, may_be_expired=may_be_expired)
        except UnverifiableAccessToken:
            raise UnknownCredential("This access token is not valid.") from None
        except InvalidAccessToken:
            raise Problem("invalid-credential", "This access token is not valid.") from None


class Touches:
    """Records uses without making anybody wait: a touch that is lost only shortens idle life (D4)."""

    def __init__(self, ledger: SessionLedger) -> None:
        self._ledger = ledger
        self._waiting: set[UUID] = set()

    def use(self, session: SessionView, now: datetime, correlation_id: UUID) -> None:
        idle_s = (now - session.last_active_at).total_seconds()
        if session.session_id in self._waiting or idle_s < self._ledger.limits.touch_interval_of(session.timeouts):
            return
        self._waiting.add(session.session_id)
        future = self._ledger.touch_session(session.stream, session.session_id, Request("self", correlation_id))
        future.add_done_callback(lambda _: self._waiting.discard(session.session_id))


def new_token() -> str:
    """A session token: the partition and 31 random bytes, base64url (SES-01)."""
    return base64.urlsafe_b64encode(PARTITION + os.urandom(31)).decode().rstrip("=")


def _cookie(headers: list[bytes], name: str) -> str | None:
    """Our cookie, read strictly: two of them are refused, since nothing says which of them the browser meant."""
    pairs = (pair.strip().partition("=") for header in headers for pair in header.decode("latin-1").split(";"))
    values = [value for key, _, value in pairs if key == name]
    if len(values) > 1:
        raise Problem("invalid-credentials-form", f"The cookie {name} was sent twice.")
    return values[0] if values and values[0] else None


def _bearer(headers: list[bytes]) -> str:
    if len(headers) > 1:
        raise Problem("two-credentials", "Send one Authorization header.")
    scheme, _, rest = headers[0].decode("latin-1").partition(" ")
    if scheme.lower() != "bearer":
        raise Problem("unauthenticated", "Only Bearer credentials are accepted.")
    token = rest.strip()
    if not _BEARER_TOKEN.fullmatch(token):
        raise Problem("invalid-credentials-form", "The Authorization header is malformed.")
    return token


def refuse_cross_site(scope: HttpScope) -> None:
    """An unsafe method by cookie must come from our own pages; a program that sends neither header may (WEB-04)."""
    if scope["method"] in SAFE_METHODS:
        return
    headers = Headers(scope=scope)
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        own = site in ("same-origin", "none")
    else:
        host = headers.get("host")
        own = origin is None or origin in (f"https://{host}", f"http://{host}")
    if not own:
        raise Problem("cross-site-request", "This request comes from another site.")


async def resolve(state: State, scope: HttpScope) -> Caller:
    """Whoever calls; a user's request touches his session. Every route asks here."""
    try:
        found: Caller = await state.credentials.caller(scope)
    except UnknownCredential:
        state.guesses.count_credential(scope.get("client"))
        raise
    if found.session:
        state.touches.use(found.session, state.service.clock.now(), scope["state"]["request_id"])
    return found


def own_session(caller: Caller) -> SessionView:
    """The session of a user who calls; keys and clients are nobody's session."""
    if caller.session is None:
        raise Problem("insufficient-scope", "This call needs a signed-in user's session.")
    return caller.session


async def signed_in(request: HttpRequest) -> SignedIn:
    """A user by his own session."""
    caller = await resolve(request.app.state, request.scope)
    return SignedIn(own_session(caller), caller.by_cookie, Request("self", request.state.request_id))


@dataclass(frozen=True, slots=True)
class Authorized:
    """A service or an administrator who may do what was asked for."""

    session_id: UUID | None
    _caller: Caller
    _ledger: SessionLedger
    _request_id: UUID

    @property
    def name(self) -> str:
        """As events name actors."""
        client_id = self._caller.client_id
        return self._caller.actor if client_id is None else f"user:{self._ledger.pseudonym(client_id)}"

    @property
    def scopes(self) -> frozenset[str]:
        return self._caller.scopes

    async def command(self) -> Request:
        """On whose behalf a command comes. A client by JWT is enrolled first, so that he can be named later."""
        request = Request(self.name, self._request_id)
        if self._caller.client_id is not None:
            await durable(self._ledger.enrol_user(self._caller.client_id, request))
        return request


class Needs:
    """A dependency: the caller must hold the scope, or another one that does as well."""

    def __init__(self, scope: Scope, *others: Scope) -> None:
        self._scope = scope
        self._any = {scope, *others}

    async def __call__(self, request: HttpRequest) -> Authorized:
        caller = await resolve(request.app.state, request.scope)
        if not self._any & caller.scopes:
            raise insufficient(self._scope)
        session_id = caller.session.session_id if caller.session else None
        return Authorized(session_id, caller, request.app.state.service.ledger, request.state.request_id)


def insufficient(scope: Scope) -> Problem:
    return Problem("insufficient-scope", f"This call needs the scope {scope}.", scope=str(scope))


async def still_holds(request: HttpRequest, by: Authorized) -> bool:
    """Whether the credential of a request that takes long is still good for what it was when that began."""
    try:
        caller = await request.app.state.credentials.caller(request.scope)
    except (Problem, LedgerError):
        return False
    return bool(caller.scopes == by.scopes)


User = Annotated[SignedIn, Depends(signed_in)]
"""A handler's parameter: the signed-in user who calls."""
