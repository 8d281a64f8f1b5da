"""Hostile and unlucky input: each gets a 4xx that names what is wrong, and changes nothing (T-14, API-08, API-12).

The routes and what they take are read from the OpenAPI document, so that a new route is attacked the day it is there.
"""

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from jsonschema_rs import validator_for

from api.body import MalformedJson, parse_json
from api.edge import MAX_BODY
from tests.api.client import ADMIN, Api, Call, Headers, SignedIn, settled, told
from tests.api.test_body import MALFORMED
from tests.api.test_listing import next_cursor, sign_in_many
from tests.store.given import everything

JSON = {"Content-Type": "application/json"}
MALFORMED_JSON = (400, "malformed-json")
UNFIT = (422, "invalid-request")
NO_SESSION = (404, "session-not-found")
NO_PATH = (404, "not-found")
TOO_LARGE = (413, "body-too-large")
NO_MEDIA_TYPE = (415, "unsupported-media-type")


class Operation(NamedTuple):
    """A route as the document describes it. `body` is the schema of its body, whole; None when it takes none."""

    call: Call
    parameters: dict[tuple[str, str], dict[str, Any]]
    body: dict[str, Any] | None
    needs_body: bool
    takes_form: bool
    by_session: bool
    guarded: bool
    is_form: bool

    def __str__(self) -> str:
        return " ".join(self.call)


def operations(document: dict[str, Any]) -> list[Operation]:
    return [
        _operation((method.upper(), path), told_of, document["components"])
        for path, item in document["paths"].items()
        for method, told_of in item.items()
    ]


def _operation(call: Call, told_of: dict[str, Any], components: dict[str, Any]) -> Operation:
    schemes = {scheme for way in told_of.get("security", []) for scheme in way}
    body = told_of.get("requestBody", {})
    schema = body.get("content", {}).get("application/json", {}).get("schema")
    return Operation(
        call,
        {(p["in"], p["name"]): p["schema"] for p in told_of.get("parameters", [])},
        _resolved(schema, components) if schema else None,
        body.get("required", False),
        "303" in told_of["responses"],
        "sessionCookie" in schemes,
        bool(schemes),
        bool(body.get("required")) and not schema,
    )


def _resolved(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    """The schema of the object that a body is, beside what may stand in its place."""
    [ref] = [part["$ref"] for part in schema.get("anyOf", [schema]) if "$ref" in part]
    return {**components["schemas"][ref.rpartition("/")[2]], "components": components}


class Target:
    """A ledger with something to lose, and somebody who is allowed everything that is asked for below."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.operations = operations(api.app.openapi())
        self.alice, self.there = sign_in_many(api, 4)[-2:]
        self.bob = api.sign_in("bob")
        api.begin({"user_id": "carol"}, **{"Idempotency-Key": "carol's"})
        api.post("/api/users/dave/disable", ADMIN)
        settled(api)
        self._before = everything(api.service)

    def with_body(self) -> list[Operation]:
        return [operation for operation in self.operations if operation.body]

    def guarded(self) -> list[Operation]:
        """What takes JSON or no body at all; forms have tests of their own (`test_introspection.py`)."""
        return [operation for operation in self.operations if operation.guarded and not operation.is_form]

    def with_parameter(self, place: str, name: str) -> list[Operation]:
        found = [operation for operation in self.operations if (place, name) in operation.parameters]
        assert found, name
        return found

    def headers(self, operation: Operation) -> Headers:
        """A credential that opens the route."""
        return self.alice.bearer if operation.by_session else ADMIN if operation.guarded else {}

    def path(self, operation: Operation, **changes: str) -> str:
        return operation.call[1].format(
            **{"user_id": "alice", "session_id": self.there.id, "event_id": self.there.id, **changes}
        )

    def send(self, operation: Operation, query: str = "", path: str = "", **request: Any) -> httpx.Response:
        sent = [*self.headers(operation).items(), *request.pop("headers", {}).items()]
        if operation.needs_body and "content" not in request:
            request["json"] = good(operation.body or {})
        return self.api.request(operation.call[0], (path or self.path(operation)) + query, sent, **request)

    def refuses(self, operation: Operation, answer: tuple[int, str], says: str, **request: Any) -> None:
        """The request is answered as a problem of this status and kind, whose detail says what is wrong."""
        got = self.send(operation, **request)
        what = f"{operation} {str(request)[:300]}"
        assert (what, *told(got)) == (what, *answer)
        assert (what, says in got.json()["detail"]) == (what, True), got.text
        assert self.log_is_as_it_was(), what

    def log_is_as_it_was(self) -> bool:
        return self.api.service.recorder.max_notification_id() == len(self._before["log.events"])

    def assert_untouched(self) -> None:
        assert everything(self.api.service) == self._before
        assert [self.api.is_active(s.bearer) for s in (self.alice, self.there, self.bob)] == [True, True, True]


@pytest.fixture(scope="module")
def shared_target(shared_api: Api) -> Target:
    return Target(shared_api)


@pytest.fixture
def target(shared_target: Target) -> Iterator[Target]:
    """It must be as it was when the test ends: log, read models, identities, keys, kept answers."""
    yield shared_target
    shared_target.assert_untouched()


def good(schema: dict[str, Any]) -> dict[str, Any]:
    """The smallest body that fits."""
    return {name: schema["properties"][name]["examples"][0] for name in schema.get("required", ())}


def content(body: Any) -> dict[str, Any]:
    return {"content": json.dumps(body).encode(), "headers": JSON}


def strings(schema: dict[str, Any]) -> Iterator[int]:
    """The greatest length of each kind of string that this may be."""
    for part in schema.get("anyOf", [schema]):
        if part.get("type") == "string" and "maxLength" in part:
            yield part["maxLength"]


# -- bodies

UNKNOWN = ["tenant", "tenant_id", "is_admin", "sub", "sid", "User_id", "user_id ", "token", "__proto__", "constructor"]


def test_t_04_an_unknown_member_such_as_a_tenant_is_named_by_every_route(target: Target):
    for operation in target.guarded():
        for name in [*UNKNOWN, "a/b", "x" * 300]:
            body = {**good(operation.body or {}), name: "acme"}
            says = f"/{name}: Extra inputs are not permitted".replace("a/b", "a~1b")
            target.refuses(operation, UNFIT, says, **content(body))


CANDIDATES: list[Any] = [None, True, False, 0, 1, -1, 1.5, 10**18, "", "x", "true", [], [1], [None], {}, {"a": 1}]
LENIENT = {"auth_time": (int, float)}  # seconds since 1970 are taken too


def test_each_member_of_a_wrong_type_is_named(target: Target):
    for operation in target.with_body():
        assert operation.body
        for name, schema in operation.body["properties"].items():
            fits = validator_for({**schema, "components": operation.body["components"]}, validate_formats=True).is_valid
            for value in CANDIDATES:
                if not fits(value) and type(value) not in LENIENT.get(name, ()):
                    body = {**good(operation.body), name: value}
                    target.refuses(operation, UNFIT, f"/{name}", **content(body))


def test_each_string_that_is_too_long_is_named(target: Target):
    tried = set()
    for operation in target.with_body():
        assert operation.body
        for name, schema in operation.body["properties"].items():
            for longest in strings(schema):
                tried.add(name)
                target.refuses(
                    operation, UNFIT, f"/{name}", **content({**good(operation.body), name: "a" * (longest + 1)})
                )
                if longest == 255:  # counted in bytes, where a stored id is meant
                    for text in ("é" * 128, "€" * 85 + "a", "😀" * 64):
                        target.refuses(
                            operation,
                            UNFIT,
                            f"/{name}: at most 255 bytes",
                            **content({**good(operation.body), name: text}),
                        )
    assert tried == {"user_id", "user_agent", "idp_name"}


TEXTS = ["a\nb", "a\tb", "\x1b[31m", "\x7f", "\ufffd", ""]


def test_a_string_that_nobody_could_read_is_named(target: Target):
    for operation in target.with_body():
        for name in {"user_id", "idp_name"} & (operation.body or {})["properties"].keys():
            for text in TEXTS:
                target.refuses(operation, UNFIT, f"/{name}", **content({**good(operation.body or {}), name: text}))
            for text in ("\\u0000", "\\ud800", "\\udfff", "\\ude00\\ud83d"):
                raw = f'{{"user_id":"a","{name}":"{text}"}}' if name != "user_id" else f'{{"user_id":"{text}"}}'
                target.refuses(operation, MALFORMED_JSON, f"/{name}", content=raw.encode(), headers=JSON)


def test_a_body_that_is_no_object_is_refused_by_every_route(target: Target):
    for operation in target.guarded():
        for body in ([], ["alice"], "alice", 3, 1.5, True, [{"user_id": "alice"}]):
            target.refuses(operation, UNFIT, "body", **content(body))
        if operation.needs_body:
            target.refuses(operation, UNFIT, "body", **content(None))
            target.refuses(operation, UNFIT, "body", content=b"", headers=JSON)


def test_t_14_malformed_json_is_a_400_on_every_route_that_says_why(target: Target):
    for body in MALFORMED.values():
        with pytest.raises(MalformedJson) as why:
            parse_json(body)
        for operation in target.guarded():
            target.refuses(operation, MALFORMED_JSON, str(why.value), content=body, headers=JSON)


MEDIA_TYPES = [
    *("text/plain", "multipart/form-data; boundary=x", "application/merge-patch+json", "application/x-ndjson"),
    *("application/json; charset=utf-16", "application/json, text/plain", "json", "", "\xff"),
    "application/x-www-form-urlencoded",
]


def test_another_media_type_is_refused_by_every_route(target: Target):
    for operation in target.guarded():
        for media_type in MEDIA_TYPES[: -1 if operation.takes_form else None]:
            headers = {"Content-Type": media_type.encode("latin-1")}
            target.refuses(operation, NO_MEDIA_TYPE, "application/json", content=b'{"a":1}', headers=headers)
        target.refuses(operation, NO_MEDIA_TYPE, "application/json", content=b"x")


def test_a_huge_body_is_refused_by_every_route_however_it_is_sent(target: Target):
    huge = b'{"user_id":"' + b"a" * 10 * MAX_BODY + b'"}'
    for operation in target.guarded():
        for size in (MAX_BODY + 1, len(huge)):
            target.refuses(operation, TOO_LARGE, f"{MAX_BODY} bytes", content=huge[:size], headers=JSON)
            target.refuses(operation, TOO_LARGE, f"{MAX_BODY} bytes", content=chunks(huge[:size]), headers=JSON)
        nested = b"[" * 100_000
        target.refuses(operation, TOO_LARGE, f"{MAX_BODY} bytes", content=chunks(nested), headers=JSON)
        for length in (b"5", b"0", b"-1", b"x"):
            lying = {**JSON, "Content-Length": length, "Transfer-Encoding": b"chunked"}
            target.refuses(operation, TOO_LARGE, f"{MAX_BODY} bytes", content=chunks(huge), headers=lying)
        for length in (b"16385", b"1" * 30, b"9" * 5_000):
            announced = {**JSON, "Content-Length": length}
            target.refuses(operation, TOO_LARGE, f"{MAX_BODY} bytes", content=chunks(b"{}"), headers=announced)


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 1000):
        yield body[start : start + 1000]


# -- paths

IDS = ["x", "0", "-", "%00", "%ff", "%ed%a0%80", "%0d", "%F0%9F%94%91", "a" * 4000, "%2e", "..%00", "%3F", "null"]
IDS += ["6f1c7a52-93f4-4f0e-9d7b-0c6a7e1f2b3d", "6f1c7a52-93f4-4f0e-9d7b-0c6a7e1f2b3", "'%20OR%201=1%20--", "*", "%25"]


def test_a_session_id_that_is_none_is_the_same_404_on_every_route(target: Target):
    for operation in target.with_parameter("path", "session_id"):
        mine = target.there.id
        disguised = [mine.replace("-", ""), f"{{{mine}}}", f"urn:uuid:{mine}", f"%20{mine}", f"{mine}%20", mine + "0"]
        for session_id in [*IDS, *disguised, target.bob.id, target.there.token]:
            path = target.path(operation, session_id=session_id)
            target.refuses(operation, NO_SESSION, "There is no such session.", path=path)


NOBODY = ["", "%00", "a%00b", "a%09b", "%7f", "%1b[31m", "%ff", "%c3", "%ed%a0%80", "%ef%bf%bd", "%f4%90%80%80"]
NOBODY += ["a" * 256, "%C3%A9" * 128, "%F0%9F%98%80" * 64, "a" * 60_000]


def test_a_user_id_that_nobody_can_have_is_named_by_every_route(target: Target):
    for operation in target.with_parameter("path", "user_id"):
        ends_with_him = operation.call[1].endswith("{user_id}")
        for user_id in NOBODY[ends_with_him:]:  # an empty one would be another path there
            target.refuses(operation, UNFIT, "user_id: ", path=target.path(operation, user_id=user_id))


ELSEWHERE = [
    *("/", "/api", "/api/", "/api//sessions", "//api/sessions", "/API/sessions", "/api/sessions/", "/api/sessions//"),
    *("/api/sessions/x/y", "/api/sessions/..%2f..%2fhealthz", "/api/auth/session/", "/api/auth/%2e%2e/sessions/x/y"),
    *("/api/auth%2fsession%00", "/api/sessions%00", "/api/sessions%2f", "/%ff", "/%2e%2e/%2e%2e/etc/passwd", "/docs"),
    *("/api/users", "/api/users/alice/", "/api/users/alice/sessions/x/y", "/static/../app.py"),
    *("/api/sessions%0a", "/api/auth/session%0a", "/healthz%0a", "/openapi.json%0a", "/api/sessions/revoke-all%0a"),
    *("/api/users/alice/disable%0a", "/api/users/alice/sessions%0a", "/%0a/healthz"),
    *("/api/users/alice/disable/", "/api/users/alice/sessions/", "/api/sessions;x=1", "/redoc", "/.env", "/metrics/x"),
]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_path_that_is_none_leads_nowhere(target: Target, method: str):
    for path in ELSEWHERE:
        for headers in (target.alice.bearer, ADMIN):
            answer = target.api.request(method, path, headers)
            assert (path, *told(answer)) == (path, *NO_PATH)
            assert answer.json()["detail"] == "Nothing here."


METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "X" * 400]


def test_a_method_that_a_path_has_not_is_refused_and_the_others_are_told(target: Target):
    for operation in target.operations:
        path = target.path(operation)
        concrete = [other for other in target.operations if other.call[1] == path]  # wins over a template
        allowed = {other.call[0] for other in concrete or target.operations if matches(other, path)}
        for method in (method for method in METHODS if method not in allowed):
            for headers in (target.alice.bearer, ADMIN, target.alice.by_cookie, {}):
                answer = target.api.request(method, path, headers)
                assert (method, path, answer.status_code) == (method, path, 405)
                assert method == "HEAD" or told(answer) == (405, "method-not-allowed")
                assert method == "TRACE" or set(answer.headers["Allow"].split(", ")) == allowed


def matches(operation: Operation, path: str) -> bool:
    return bool(re.fullmatch(re.sub(r"\{[a-z_]+\}", "[^/]+", operation.call[1]), path))


# -- queries and headers

LIMITS = [
    "0",
    "101",
    "-1",
    "x",
    "1e3",
    "1.5",
    "",
    "%00",
    "0x10",
    "٣",
    "9" * 30,
    "9" * 5_000,
    "null",
    "true",
    "1,2",
    "[]",
]
STATUSES = ["foo", "", "ACTIVE", "active%00", "ended,all", "%ff", "all%20", "*", "'--"]


def test_a_query_that_is_not_understood_is_named_by_every_route(target: Target):
    for name, values in {"limit": LIMITS, "status": STATUSES}.items():
        for operation in target.with_parameter("query", name):
            for value in values:
                target.refuses(operation, UNFIT, f"{name}: ", query=f"?{name}={value}")


def test_a_cursor_that_is_not_ours_is_refused_by_every_route(target: Target):
    mine = next_cursor(target.api, "/api/sessions?status=all&limit=1", target.alice.bearer)
    others = ["", "x", "A" * 32, "A" * 64, "%00", "%ff", "%C3%A9", mine[:-1], mine[1:], mine + "A", mine.swapcase()]
    for operation in target.with_parameter("query", "cursor"):
        of_history = "status=all&" if ("query", "status") in operation.parameters else ""
        of_ended = of_history.replace("all", "ended")
        for cursor in others:
            target.refuses(operation, (400, "invalid-cursor"), "as it came", query=f"?{of_history}cursor={cursor}")
        target.refuses(operation, (400, "invalid-cursor"), "as it came", query=f"?{of_ended}cursor={mine}")
        for cursor in ("A" * 65, mine * 3, "%C3%A9" * 65):
            target.refuses(operation, UNFIT, "cursor: ", query=f"?{of_history}cursor={cursor}")


KEYS = [b"", b"a\tb", b"a\0", b"\x1b[31m", "é".encode(), b"\xed\xa0\x80", b"\xff", b"a" * 256, b"a" * 9_000]


def test_an_idempotency_key_that_is_none_is_named_by_every_route(target: Target):
    for operation in target.with_parameter("header", "Idempotency-Key"):
        for key in KEYS:
            target.refuses(operation, UNFIT, "Idempotency-Key: ", headers={"Idempotency-Key": key})


# -- users


def test_a_disabled_user_does_not_sign_in_and_leaves_no_trace(target: Target):
    for more in ({}, {"remember_me": True}, {"ip_address": "203.0.113.7", "user_agent": "curl/8.0"}):
        for headers in ({}, {"Idempotency-Key": "dave's"}):
            answer = target.api.begin({"user_id": "dave", **more}, **headers)
            assert told(answer) == (403, "user-disabled")
            assert answer.json()["error"] == "This user is disabled: no session can be created."
            assert "WWW-Authenticate" not in answer.headers
    answer = target.api.begin({"user_id": "dave", "replaces": target.bob.token})
    assert told(answer) == (422, "foreign-replacement")


# -- what is just within the limits


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("a" * 512, "a" * 512),
        ("a" * 513, "a" * 509 + "…"),
        ("a" * 8192, "a" * 509 + "…"),
        ("é" * 256, "é" * 256),
        ("é" * 257, "é" * 254 + "…"),
        ("😀" * 129, "😀" * 127 + "…"),
    ],
    ids=["512 bytes", "513 bytes", "8 KiB", "512 bytes in pairs", "514 bytes in pairs", "516 bytes in fours"],
)
def test_a_user_agent_over_512_bytes_is_cut_and_marked(api: Api, sent: str, kept: str):
    answer = api.begin({"user_id": "alice", "user_agent": sent})
    [listed] = api.get("/api/users/alice/sessions", ADMIN).json()["sessions"]
    assert answer.json()["session"]["user_agent"] == listed["user_agent"] == kept
    assert len(kept.encode()) <= 512


@pytest.mark.parametrize(
    "user_id", ["a" * 255, "é" * 127 + "a", "€" * 85, "😀" * 63 + "abc"], ids=["ASCII", "pairs", "threes", "fours"]
)
def test_an_id_of_255_bytes_is_one_in_bodies_and_in_paths(api: Api, user_id: str):
    alice: SignedIn = api.sign_in(user_id, idp_name=user_id)
    path = "".join(f"%{byte:02x}" for byte in user_id.encode())
    [listed] = api.get(f"/api/users/{path}/sessions", ADMIN).json()["sessions"]
    assert (listed["id"], listed["idp_name"]) == (alice.id, user_id)
    assert api.post(f"/api/users/{path}/disable", ADMIN).json()["user_id"] == user_id
