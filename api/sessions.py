"""A user's own sessions, and their beginning, which a sign-in service reports."""

import hashlib
import hmac
import json
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from api.body import StrictRoute
from api.cookies import SessionCookie
from api.credentials import Authorized, Needs, User, new_token
from api.devices import clean_user_agent, device_label
from api.errors import Problem, problem_responses
from api.ids import uuid4, uuid_of
from api.listing import Listing, sessions_of
from api.names import Documented
from api.openapi import BEARER, SESSION, USER_PROBLEMS, WRITING, operation_id
from api.schemas import (
    Json,
    Message,
    NewSession,
    RevokeAll,
    RevokedCount,
    RevokedSessions,
    SessionList,
    SessionOut,
    SessionStarted,
)
from api.service import durable
from domain.errors import ForeignReplacement, SessionNotFound
from domain.events import ClientDetails, EndReason
from domain.ledger import Claim, SessionLedger
from domain.session import Session
from domain.user import SignIn
from projections.session_views import SessionQueries, SessionView
from store.api_keys import Scope, digest

LEEWAY = timedelta(seconds=60)  # between the clocks of two hosts (T-18)

router = APIRouter(
    prefix="/api/sessions", tags=["sessions"], route_class=StrictRoute, generate_unique_id_function=operation_id
)

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Repeat the call with the same key, within 24 h, to get the first answer again.",
        min_length=1,
        max_length=255,
        pattern=r"^[!-~]([ -~]*[!-~])?$",  # HTTP takes spaces off the ends
        examples=["8e03978e-40d5-43dd-bc93-6894a57f9324"],
    ),
]

SessionId = Annotated[
    str,
    Documented(format="uuid"),
    Path(description="The public id, as lists show it.", examples=["6f1c7a52-93f4-4f0e-9d7b-0c6a7e1f2b3d"]),
]


class _NoAction(StringConvertor):
    """A concrete path wins over a template (OpenAPI): `revoke-all` is no session, so DELETE there is a 405."""

    regex = "(?!(?:revoke-all|revoke)$)[^/]+"


register_url_convertor("no_action", _NoAction())


@router.get("", summary="List my sessions", response_model=SessionList,
            responses=problem_responses(*USER_PROBLEMS, "invalid-cursor"), openapi_extra=SESSION)  # fmt: skip
async def list_sessions(http: HttpRequest, user: User, asked: Listing) -> Json:
    """All active sessions, newest activity first, never paged. `status=ended` or `all` pages the history."""
    return await sessions_of(http, asked, user.session.stream, user.session.session_id)


@router.post("", status_code=201, summary="Begin a session",
             responses=problem_responses(
                 *("malformed-json", "invalid-credentials-form", "two-credentials", "credential-in-url"),
                 *("unauthenticated", "invalid-credential", "insufficient-scope", "cross-site-request"),
                 *("user-disabled", "user-erased", "idempotent-session-ended", "body-too-large"),
                 *("unsupported-media-type", "invalid-request", "foreign-replacement"),
                 *("idempotency-key-reused", "too-many-guesses"),
                 *("request-timeout", "busy", "store-unavailable", "keys-unavailable", "outcome-unknown"),
             ), openapi_extra=BEARER)  # fmt: skip
async def create_session(
    http: HttpRequest,
    response: Response,
    body: NewSession,
    by: Annotated[Authorized, Depends(Needs(Scope.SESSIONS_CREATE))],
    idempotency_key: IdempotencyKey = None,
) -> SessionStarted:
    """Record that a person signed in, as the sign-in service tells it (scope `sessions:create`).

    The answer has the token, shown this once, and the cookie line for the person's browser.
    """
    state = http.app.state
    if body.auth_time and body.auth_time > state.service.clock.now() + LEEWAY:
        fault = {"pointer": "/auth_time", "detail": "lies in the future"}
        raise Problem("invalid-request", "/auth_time: lies in the future", errors=[fault])
    starting = _Starting(body, await _replaced(state.service.sessions, body), state.cookie, state.keep_client_details)
    command = await by.command()
    claim = idempotency_key and _claim(state.claim_key, idempotency_key, command.actor, body, starting)
    ledger: SessionLedger = state.service.ledger
    recorded = await durable(ledger.create_session(body.user_id, starting.sign_in, command, claim or None))
    if recorded.replay is not None:
        response.headers["Idempotency-Replayed"] = "true"
        return SessionStarted.model_validate_json(recorded.replay)
    return starting.answer(recorded.result)


@router.delete("", summary="End my other sessions", responses=problem_responses(*WRITING), openapi_extra=SESSION)
async def revoke_other_sessions(http: HttpRequest, user: User) -> RevokedSessions:
    """End every session of the caller but the one that asks, in one append."""
    count = await _revoke_all(http, user, keep=user.session.session_id)
    return RevokedSessions(message="Other sessions revoked", revoked_count=count)


@router.post("/revoke-all", summary="End all my sessions",
             responses=problem_responses(*WRITING), openapi_extra=SESSION)  # fmt: skip
async def revoke_all_sessions(
    http: HttpRequest, response: Response, user: User, body: RevokeAll | None = None
) -> RevokedCount:
    """End every session of the caller in one append, the one that asks included unless `except_current`."""
    keep = user.session.session_id if body and body.except_current else None
    count = await _revoke_all(http, user, keep)
    if keep is None and user.by_cookie:
        response.headers["Set-Cookie"] = http.app.state.cookie.cleared
    return RevokedCount(revoked_count=count)


@router.delete("/{session_id:no_action}", summary="End one of my sessions",
               responses=problem_responses(*WRITING, "session-not-found"), openapi_extra=SESSION)  # fmt: skip
async def revoke_session(http: HttpRequest, response: Response, user: User, session_id: SessionId) -> Message:
    """End one session; one that has ended already is answered alike. Unknown, foreign and malformed ids are one 404."""
    service = http.app.state.service
    if session_id == str(user.session.session_id):
        view = user.session  # read just now
    else:
        with http.app.state.guesses.looking_up(user.name):
            view = await owned_session(service.sessions, user.session.stream, session_id)
    revoking = service.ledger.revoke_session(view.stream, view.session_id, EndReason.REVOKED_BY_USER, user.request)
    await durable(revoking)
    if user.by_cookie and view.session_id == user.session.session_id:
        response.headers["Set-Cookie"] = http.app.state.cookie.cleared
    return Message(message="Session revoked")


async def owned_session(sessions: SessionQueries, stream: UUID, session_id: str) -> SessionView:
    """A session of this user, active or ended. Raises `SessionNotFound` for every other id alike (API-03)."""
    try:
        view = await sessions.of_user(stream, uuid_of(session_id))
    except ValueError:
        view = None
    if view is None:
        raise SessionNotFound(session_id)
    return view


async def _revoke_all(http: HttpRequest, user: User, keep: UUID | None) -> int:
    ledger: SessionLedger = http.app.state.service.ledger
    revoking = ledger.revoke_all_sessions(user.session.stream, EndReason.REVOKE_ALL, user.request, keep=keep)
    return (await durable(revoking)).result


async def _replaced(sessions: SessionQueries, body: NewSession) -> UUID | None:
    """The session to replace; one that has ended is as good as none. Raises `ForeignReplacement`."""
    if body.replaces is None:
        return None
    view = await sessions.by_token(digest(body.replaces))
    if view is None or view.user_id != body.user_id:
        raise ForeignReplacement("replaces")
    return view.session_id


class _Starting:
    """A session that is about to begin: its secret, and what the ledger and the caller get to see of it."""

    def __init__(self, body: NewSession, replaces: UUID | None, cookie: SessionCookie, keep_details: bool) -> None:
        self._cookie = cookie
        self._token = new_token()
        user_agent = clean_user_agent(body.user_agent) if body.user_agent else None
        details = (
            ClientDetails(body.ip_address, user_agent) if keep_details and (body.ip_address or user_agent) else None
        )
        self.sign_in = SignIn(
            session_id=uuid4(),
            token_hash=digest(self._token),
            device=device_label(body.user_agent),
            client=details,
            remember_me=body.remember_me,
            idp_name=body.idp_name,
            auth_time=body.auth_time,
            amr=tuple(body.amr),
            replaces=replaces,
        )

    def answer(self, session: Session) -> SessionStarted:
        sign_in = self.sign_in
        client = sign_in.client or ClientDetails(None, None)
        shown = SessionOut(
            id=sign_in.session_id,
            user_agent=client.user_agent,
            device=sign_in.device,
            ip_address=client.ip_address,
            created_at=session.created_at,
            last_active_at=session.created_at,
            expires_at=session.deadline.at,
            idp_name=sign_in.idp_name,
            remember_me=sign_in.remember_me,
            is_current=False,
        )
        lifetime = session.timeouts.absolute if sign_in.remember_me else None
        return SessionStarted(session=shown, token=self._token, cookie=self._cookie.holding(self._token, lifetime))


def _claim(secret: bytes, key: str, actor: str, body: NewSession, starting: _Starting) -> Claim:
    """Keys of different callers are different keys (API-07). Keyed digests: a bare one would betray an IP address."""
    request = json.dumps(body.model_dump(mode="json"), sort_keys=True)
    return Claim(
        key=_digest(secret, actor, key),
        fingerprint=_digest(secret, "POST /api/sessions", request),
        answer=lambda session: starting.answer(session).model_dump_json().encode(),
    )


def _digest(secret: bytes, *parts: str) -> bytes:
    return hmac.digest(secret, json.dumps(parts).encode(), hashlib.sha256)
