"""Where errors become problems (RFC 9457, design D14): the one table from what can go wrong to what a client reads.

"Why 409?" is answered here. A problem tells what happened and never how the inside looks (ASVS 16.5.1).
"""

import json
import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match

from domain.errors import (
    ForeignReplacement,
    IdempotencyKeyReused,
    IdempotentSessionEnded,
    LedgerBusy,
    LedgerError,
    OutcomeUnknown,
    SessionNotFound,
    StoreUnavailable,
    UserDisabled,
    UserErased,
)

PROBLEM_BASE = "https://session-ledger.dev/problems/"
MEDIA_TYPE = "application/problem+json"
MAX_FAULTS = 20

_log = logging.getLogger("ledger.errors")


class Kind(NamedTuple):
    """What is the same for every problem of one kind (RFC 9457 §3.1: the title does not change)."""

    status: int
    title: str


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "bad-request": Kind(400, "The request cannot be understood"),
        "malformed-json": Kind(400, "The body is not acceptable JSON"),
        "malformed-form": Kind(400, "The body is not an acceptable form"),
        "credential-in-url": Kind(400, "Credentials do not belong in a URL"),
        "invalid-credentials-form": Kind(400, "The credentials are malformed"),
        "two-credentials": Kind(400, "More than one credential"),
        "invalid-cursor": Kind(400, "The cursor is not one of ours"),
        "unknown-event": Kind(400, "The event to resume from is unknown"),
        "page-too-deep": Kind(400, "The page is too deep"),
        "unauthenticated": Kind(401, "Sign-in required"),
        "invalid-credential": Kind(401, "The credential is not valid"),
        "insufficient-scope": Kind(403, "The credential does not allow this"),
        "cross-site-request": Kind(403, "A request from another site"),
        "user-disabled": Kind(403, "The user is disabled"),
        "user-erased": Kind(403, "The user was erased"),
        "not-found": Kind(404, "Nothing here"),
        "session-not-found": Kind(404, "No such session"),
        "event-not-found": Kind(404, "No such event"),
        "no-checkpoint": Kind(404, "No checkpoint yet"),
        "position-not-sealed": Kind(404, "Not sealed yet"),
        "method-not-allowed": Kind(405, "The method is not allowed here"),
        "request-timeout": Kind(408, "The request took too long to arrive"),
        "idempotent-session-ended": Kind(409, "The session of this idempotency key has ended"),
        "body-too-large": Kind(413, "The body is too large"),
        "unsupported-media-type": Kind(415, "The body has a media type that is not accepted"),
        "invalid-request": Kind(422, "The request does not fit its description"),
        "foreign-replacement": Kind(422, "The session to replace is not one of this user"),
        "idempotency-key-reused": Kind(422, "The idempotency key came with another request"),
        "too-many-guesses": Kind(429, "Too many guesses"),
        "internal-error": Kind(500, "Something went wrong on our side"),
        "clock-drift": Kind(503, "The clock cannot be trusted"),
        "busy": Kind(503, "Too busy at the moment"),
        "keys-unavailable": Kind(503, "Access tokens cannot be verified at the moment"),
        "outcome-unknown": Kind(503, "The outcome is unknown"),
        "store-unavailable": Kind(503, "The store is unavailable"),
    }
)

REFUSALS: Mapping[type[LedgerError], tuple[str, str]] = MappingProxyType(
    {
        UserDisabled: ("user-disabled", "This user is disabled: no session can be created."),
        UserErased: ("user-erased", "This user was erased: nothing is recorded about him any more."),
        SessionNotFound: ("session-not-found", "There is no such session."),
        ForeignReplacement: ("foreign-replacement", "The session to replace is unknown or is not one of this user."),
        IdempotencyKeyReused: ("idempotency-key-reused", "This idempotency key was used for another request."),
        IdempotentSessionEnded: (
            "idempotent-session-ended",
            "The session that this idempotency key created has ended; use a new key to create another.",
        ),
        LedgerBusy: ("busy", "Too many requests wait already; try again in a moment."),
        OutcomeUnknown: ("outcome-unknown", "Whether this was recorded is not known; repeat the call in a moment."),
        StoreUnavailable: ("store-unavailable", "The store does not answer or cannot write; try again in a moment."),
    }
)

_RETRY_AFTER = {"busy": "1", "outcome-unknown": "2", "store-unavailable": "2", "keys-unavailable": "30"}

# RFC 6750 §3.1: no error code when no credential was sent, `invalid_request` for malformed ones (API-09).
_REALM = 'Bearer realm="session-ledger"'
_CHALLENGES = {
    "unauthenticated": _REALM,
    "invalid-credential": f'{_REALM}, error="invalid_token"',
    "insufficient-scope": f'{_REALM}, error="insufficient_scope"',
    "invalid-credentials-form": f'{_REALM}, error="invalid_request"',
    "two-credentials": f'{_REALM}, error="invalid_request"',
    "credential-in-url": f'{_REALM}, error="invalid_request"',
}

_HEADERS: Mapping[str, Mapping[str, Any]] = {
    "WWW-Authenticate": {
        "description": "What is wrong with the credential, or which scope it needs (RFC 6750 §3).",
        "schema": {"type": "string", "pattern": "^Bearer realm="},
        "example": _CHALLENGES["invalid-credential"],
    },
    "Retry-After": {
        "description": "After how many seconds to repeat the call.",
        "schema": {"type": "integer", "minimum": 1},
        "example": 2,
    },
    "RateLimit-Policy": {
        "description": "The limit `q` in `w` seconds.",
        "schema": {"type": "string"},
        "example": '"guesses";q=100;w=60',
    },
    "RateLimit": {
        "description": "What remains, and for how many seconds.",
        "schema": {"type": "string"},
        "example": '"guesses";r=0;t=42',
    },
}
# What comes with a problem whose values are known to whoever raises it.
_RAISED_WITH = {"too-many-guesses": ("Retry-After", "RateLimit-Policy", "RateLimit")}

_BY_STATUS = {
    401: "unauthenticated",
    404: "not-found",
    405: "method-not-allowed",
    413: "body-too-large",
    415: "unsupported-media-type",
}
_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")


class Problem(HTTPException):
    """A refusal as the client will read it: `raise Problem("session-not-found", "…")`.

    An `HTTPException`, because FastAPI lets only those through while it reads a body. `extensions` become members of
    the body; the `scope` of `insufficient-scope` also goes into its challenge.
    """

    def __init__(
        self, kind: str, detail: str | None = None, *, headers: Mapping[str, str] | None = None, **extensions: Any
    ) -> None:
        self.kind, self.extensions = kind, extensions
        self.status, self.title = KINDS[kind]
        told = {**_standing_headers(kind, extensions), **(headers or {})}
        super().__init__(self.status, detail or f"{self.title}.", headers=told)

    @property
    def type(self) -> str:
        return PROBLEM_BASE + self.kind

    def body(self, request_id: UUID | None) -> dict[str, Any]:
        """The members of RFC 9457 §3.1, then Aero2's `error`; `instance` names the request in our logs.

        A session that is not found is told in the same bytes, whatever the reason (API-03).
        """
        named = request_id is not None and self.kind != "session-not-found"
        instance = {"instance": f"urn:uuid:{request_id}"} if named else {}
        core = {"type": self.type, "title": self.title, "status": self.status, "detail": self.detail}
        return {**core, **instance, "error": self.detail, **self.extensions}


def _standing_headers(kind: str, extensions: Mapping[str, Any]) -> dict[str, str]:
    headers = {}
    if kind in _CHALLENGES:
        scope = f', scope="{extensions["scope"]}"' if "scope" in extensions else ""
        headers["WWW-Authenticate"] = _CHALLENGES[kind] + scope
    if kind in _RETRY_AFTER:
        headers["Retry-After"] = _RETRY_AFTER[kind]
    return headers


def problem_response(problem: Problem, request_id: UUID | None) -> Response:
    """Render in ASCII, so that no character a client sent can break the answer."""
    content = json.dumps(problem.body(request_id), separators=(",", ":"))
    return Response(content, problem.status, problem.headers, MEDIA_TYPE)


def problem_of(error: Exception) -> Problem:
    """The problem that an exception means to a client; what nobody foresaw is an `internal-error`."""
    match error:
        case Problem():
            return error
        case LedgerError():
            return _refusal(error)
        case RequestValidationError():
            return _invalid_request([_fault(each) for each in error.errors()[:MAX_FAULTS]])
        case HTTPException():
            return _framework_refusal(error)
        case ClientDisconnect():
            return Problem("bad-request", "The client left before its request was complete.")
        case _:
            return Problem("internal-error", "Something went wrong on our side; the request id helps us to find out.")


def _invalid_request(faults: list[dict[str, str]]) -> Problem:
    told = (f"{fault.get('pointer') or fault.get('parameter') or 'body'}: {fault['detail']}" for fault in faults)
    return Problem("invalid-request", "; ".join(told), errors=faults)


def _refusal(error: LedgerError) -> Problem:
    known = next((REFUSALS[kind] for kind in type(error).__mro__ if kind in REFUSALS), None)
    return Problem(*known) if known else Problem("internal-error")


def _framework_refusal(error: HTTPException) -> Problem:
    fallback = "internal-error" if error.status_code >= 500 else "bad-request"
    return Problem(_BY_STATUS.get(error.status_code, fallback), headers=error.headers)


def _fault(error: Mapping[str, Any]) -> dict[str, str]:
    """Where, as a JSON pointer (RFC 6901) into the body or a parameter's name, and what; the value is not echoed."""
    place, *path = error["loc"]
    detail = error["msg"].removeprefix("Value error, ")
    given = error.get("input")
    if isinstance(given, str) and len(given) > 3 and given in detail:
        detail = "The value is not valid"
    if place != "body":
        return {"parameter": ".".join(map(str, path)), "detail": detail}
    return {"pointer": "".join(f"/{_pointer_token(step)}" for step in path), "detail": detail}


def _pointer_token(step: object) -> str:
    return str(step).replace("~", "~0").replace("/", "~1")


def request_id_of(request: Request) -> UUID | None:
    """The id that `Edge` gave to this request."""
    request_id: UUID | None = request.scope.get("state", {}).get("request_id")
    return request_id


async def answer_error(request: Request, error: Exception) -> Response:
    """The problem as a response; what the store refused is told in the log."""
    problem = problem_of(error)
    if isinstance(error, StoreUnavailable):
        fields = {"request_id": str(request_id_of(request)), "error": str(error), "cause": repr(error.__cause__)}
        _log.warning("the store is unavailable", extra={"fields": fields})
    if problem.kind == "method-not-allowed":
        problem.headers = {"Allow": _allowed_methods(request)}
    return problem_response(problem, request_id_of(request))


def _allowed_methods(request: Request) -> str:
    """Every method of this path (RFC 9110 §10.2.1); the router names those of its first matching route only."""
    target = {"type": "http", "path": request.scope["path"], "root_path": request.scope.get("root_path", "")}
    routes = request.app.routes
    allowed = (m for m in _METHODS if any(r.matches({**target, "method": m})[0] is Match.FULL for r in routes))
    return ", ".join(allowed)


class Fault(BaseModel):
    """One thing that does not fit: `pointer` into the body, or the name of a `parameter`."""

    pointer: str | None = Field(None, examples=["/user_id"])
    parameter: str | None = Field(None, examples=["limit"])
    detail: str = Field(examples=["Field required"])


class ProblemBody(BaseModel):
    """Every error body: `application/problem+json` (RFC 9457), with a sentence for people in `error`."""

    model_config = ConfigDict(extra="allow", title="Problem")

    type: str = Field(examples=[PROBLEM_BASE + "session-not-found"])
    title: str = Field(examples=["No such session"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no such session."])
    instance: str | None = Field(
        None,
        description="The request in our logs; left out where answers must not differ.",
        examples=["urn:uuid:01936f0e-8f5a-7c11-9d3e-5a1f0c2b7a10"],
    )
    error: str = Field(examples=["There is no such session."])
    errors: list[Fault] | None = Field(None, description="What does not fit, for `invalid-request`.")


def problem_responses(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route: one entry a status, one example a kind."""
    statuses = dict.fromkeys(KINDS[kind].status for kind in kinds)
    return {status: _documented([kind for kind in kinds if KINDS[kind].status == status]) for status in statuses}


def _documented(kinds: list[str]) -> dict[str, Any]:
    examples = {kind: {"summary": KINDS[kind].title, "value": _example(kind)} for kind in kinds}
    return {
        "description": "; ".join(KINDS[kind].title for kind in kinds),
        "headers": _documented_headers([(*_standing_headers(kind, {}), *_RAISED_WITH.get(kind, ())) for kind in kinds]),
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}, "examples": examples}},
    }


def _documented_headers(sent: list[tuple[str, ...]]) -> dict[str, Any]:
    """A header is required when every kind of problem with this status has it."""
    names = dict.fromkeys(name for headers in sent for name in headers)
    return {name: {**_HEADERS[name], "required": all(name in headers for headers in sent)} for name in names}


def _example(kind: str) -> dict[str, Any]:
    details = dict(REFUSALS.values())
    return Problem(kind, details.get(kind)).body(UUID("01936f0e-8f5a-7c11-9d3e-5a1f0c2b7a10"))


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem, and describe problems in its OpenAPI document."""
    for kind in (LedgerError, RequestValidationError, HTTPException, ClientDisconnect, Exception):
        app.add_exception_handler(kind, answer_error)
    _describe_problems(app)


def _describe_problems(app: FastAPI) -> None:
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        document = describe()
        _, schemas = models_json_schema([(ProblemBody, "serialization")], ref_template="#/components/schemas/{model}")
        document.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
        return document

    app.openapi = openapi  # type: ignore[method-assign]
