"""What the OpenAPI document says beyond what FastAPI finds in the routes: credentials, headers, and what may follow."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.routing import APIRoute

from api.cookies import SessionCookie

USER_PROBLEMS = (
    *("invalid-credentials-form", "two-credentials", "credential-in-url"),
    *("unauthenticated", "invalid-credential", "insufficient-scope", "cross-site-request"),
    *("malformed-json", "body-too-large", "unsupported-media-type", "invalid-request", "too-many-guesses"),
    *("request-timeout", "store-unavailable", "keys-unavailable"),
)
"""What every call with a credential may answer, also to a body that nobody asked for."""

WRITING = (*USER_PROBLEMS, "busy", "outcome-unknown")
"""The same of a call that records something."""

SESSION: dict[str, Any] = {"security": [{"sessionCookie": []}, {"bearer": []}]}
BEARER: dict[str, Any] = {"security": [{"bearer": []}]}


class Link(NamedTuple):
    """A call that may follow, with what this one told (OpenAPI's link object). `to` is a function of a router."""

    to: str
    parameters: Mapping[str, str] = MappingProxyType({})
    body: Any = None


_BEGUN = {"user_id": "$request.body#/user_id", "session_id": "$response.body#/session/id"}
_LISTED = {"session_id": "$response.body#/sessions/0/id"}
_SAME_USER = {"user_id": "$request.path.user_id"}
_SAME_USER_BEGINS = Link("create_session", body={"user_id": "{$request.path.user_id}"})

LINKS: Mapping[str, tuple[Link, ...]] = MappingProxyType(
    {
        "create_session": (
            Link("create_session", {"Idempotency-Key": "$request.header.Idempotency-Key"}, "$request.body"),
            Link("revoke_session", {"session_id": _BEGUN["session_id"]}),
            Link("revoke_user_session", _BEGUN),
            Link("revoke_user_sessions", {"user_id": _BEGUN["user_id"]}),
            Link("list_user_sessions", {"user_id": _BEGUN["user_id"]}),
            Link("disable_user", {"user_id": _BEGUN["user_id"]}),
        ),
        "check_session": (
            Link("revoke_session", {"session_id": _BEGUN["session_id"]}),
            Link("revoke_user_session", {"user_id": "$response.body#/user_id", "session_id": _BEGUN["session_id"]}),
        ),
        "list_sessions": (Link("revoke_session", _LISTED),),
        "list_user_sessions": (Link("revoke_user_session", {**_SAME_USER, **_LISTED}),),
        "revoke_session": (
            Link("revoke_session", {"session_id": "$request.path.session_id"}),
            Link("list_sessions", {"status": "ended"}),
        ),
        "revoke_user_session": (
            Link("revoke_user_session", {**_SAME_USER, "session_id": "$request.path.session_id"}),
            Link("list_user_sessions", _SAME_USER),
        ),
        "revoke_user_sessions": (Link("list_user_sessions", _SAME_USER), _SAME_USER_BEGINS),
        "disable_user": (
            Link("enable_user", _SAME_USER),
            Link("list_user_sessions", {**_SAME_USER, "status": "ended"}),
            _SAME_USER_BEGINS,
        ),
        "enable_user": (Link("disable_user", _SAME_USER), _SAME_USER_BEGINS),
        "erase_user": (Link("list_user_sessions", _SAME_USER), Link("erase_user", _SAME_USER)),
    }
)


def _header(description: str, example: str, **more: Any) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}, "example": example, **more}


_NEXT_PAGE = _header(
    "The next page of the history, if there is one (RFC 8288).",
    '</api/sessions?status=all&limit=50&cursor=AAAAAAAAAAWYluU9Dpt0xdwPP38oR9C7>; rel="next"',
)
_NEXT_EVENTS = _header(
    "The next page, if there is one (RFC 8288).",
    '</api/audit?event_type=SessionCreated&cursor=AAAAAAAAAAWYluU9Dpt0xdwPP38oR9C7>; rel="next"',
)
_CLEARED = _header(
    "Clears the cookie that the call came with, when its session is among the ended ones.",
    "__Host-sid=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0",
)
_SIGNED_OUT = {
    "Set-Cookie": {**_CLEARED, "description": "Clears the cookie.", "required": True},
    "Clear-Site-Data": _header("Makes the browser forget.", '"cache", "cookies", "storage"', required=True),
}

HEADERS: Mapping[tuple[str, str], Mapping[str, Any]] = MappingProxyType(
    {
        ("create_session", "201"): {
            "Idempotency-Replayed": {**_header("The answer is one that was kept.", "true"), "schema": {"const": "true"}}
        },
        ("list_sessions", "200"): {"Link": _NEXT_PAGE},
        ("list_user_sessions", "200"): {"Link": _NEXT_PAGE},
        ("search_audit", "200"): {"Link": _NEXT_EVENTS},
        ("search_user_audit", "200"): {"Link": _NEXT_EVENTS},
        ("stream_audit", "200"): {"X-Accel-Buffering": _header("For a proxy: pass on what comes at once.", "no")},
        ("revoke_session", "200"): {"Set-Cookie": _CLEARED},
        ("revoke_all_sessions", "200"): {"Set-Cookie": _CLEARED},
        ("sign_out", "204"): _SIGNED_OUT,
        ("sign_out", "303"): {**_SIGNED_OUT, "Location": _header("Where the pages are.", "/", required=True)},
    }
)

REQUEST_ID = {
    "description": "The request in our logs.",
    "required": True,
    "schema": {"type": "string", "format": "uuid"},
    "example": "01936f0e-8f5a-7c11-9d3e-5a1f0c2b7a10",
}


def operation_id(route: APIRoute) -> str:
    """Operations are named as the functions that answer them, so that links can be read."""
    return route.name


def complete_document(app: FastAPI, cookie: SessionCookie) -> None:
    """Add the security schemes, the headers of every answer, and the links."""
    describe = app.openapi
    schemes = {
        "sessionCookie": {"type": "apiKey", "in": "cookie", "name": cookie.name},
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "A session token (43 characters), an API key (`slk_…`), or a JWT of the trusted issuer.",
        },
    }

    def openapi() -> dict[str, Any]:
        document = describe()
        components = document.setdefault("components", {})
        components["securitySchemes"] = schemes
        components["headers"] = {"RequestId": REQUEST_ID}
        for operation, status, answer in _answers(document):
            answer.setdefault("headers", {}).update(HEADERS.get((operation, status), {}))
            answer["headers"]["X-Request-Id"] = {"$ref": "#/components/headers/RequestId"}
            if status.startswith("2") and operation in LINKS:
                answer["links"] = {_name(link): _described(link) for link in LINKS[operation]}
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _answers(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path in document["paths"].values():
        for operation in path.values():
            for status, answer in operation["responses"].items():
                yield operation["operationId"], status, answer


def _name(link: Link) -> str:
    """Unique among the links of an answer: `list_user_sessions_by_user_id_status`."""
    return "_by_".join(filter(None, (link.to, "_".join(name.replace("-", "_") for name in link.parameters))))


def _described(link: Link) -> dict[str, Any]:
    body = {} if link.body is None else {"requestBody": link.body}
    return {"operationId": link.to, "parameters": dict(link.parameters), **body}
