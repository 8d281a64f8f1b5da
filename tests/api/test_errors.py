"""Every error is a problem, of one shape, and tells nothing of the inside (D14, API-08, API-09, API-13)."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, ConfigDict, Field, field_validator

import domain.errors
from api.errors import KINDS, PROBLEM_BASE, REFUSALS, Problem, install, problem_response, problem_responses
from domain.errors import LedgerError


class Wish(BaseModel):
    model_config = ConfigDict(extra="forbid")
    user_id: str = Field(max_length=8)
    count: int = 1
    inner: dict[str, int] = {}
    picky: str = ""

    @field_validator("picky")
    @classmethod
    def refuse(cls, value: str) -> str:
        raise ValueError(f"not {value}")


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()
    router = APIRouter()

    @router.post("/wishes", responses=problem_responses("invalid-request", "session-not-found", "not-found"))
    async def wish(wish: Wish, limit: int = 1) -> None: ...

    @router.get("/wishes")
    async def wishes() -> None: ...

    @router.delete("/wishes/{id}")
    async def raise_it(id: str) -> None:
        raise ERRORS[id]

    app.include_router(router, prefix="/api")
    install(app)
    return app


ERRORS: dict[str, Exception] = {
    **{error.__name__: error("canary") for error in LedgerError.__subclasses__()},
    **{kind: Problem(kind) for kind in KINDS},
    "scoped": Problem("insufficient-scope", "Not with this key.", scope="users:admin"),
    "foreseen": Problem("foreign-replacement", "So it is.", headers={"X-More": "1"}, limit=3),
    "unforeseen": RuntimeError("canary /etc/secret"),
    "undocumented": type("NewRefusal", (LedgerError,), {})("canary"),
}


def call(app: FastAPI, method: str, path: str, **more: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://ledger") as client:
            return await client.request(method, path, **more)

    return asyncio.run(run())


def is_problem(answer: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["status"] == answer.status_code
    assert body["type"].startswith(PROBLEM_BASE)
    assert body["error"] == body["detail"]
    assert "canary" not in answer.text
    return body


def test_every_refusal_of_the_domain_has_a_kind() -> None:
    exported = [value for value in vars(domain.errors).values() if isinstance(value, type) and value is not LedgerError]

    assert set(REFUSALS) == set(exported)
    assert {kind for kind, _ in REFUSALS.values()} <= set(KINDS)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        ("UserDisabled", 403, "user-disabled"),
        ("SessionNotFound", 404, "session-not-found"),
        ("ForeignReplacement", 422, "foreign-replacement"),
        ("IdempotencyKeyReused", 422, "idempotency-key-reused"),
        ("IdempotentSessionEnded", 409, "idempotent-session-ended"),
        ("LedgerBusy", 503, "busy"),
        ("StoreUnavailable", 503, "store-unavailable"),
        ("unforeseen", 500, "internal-error"),
        ("undocumented", 500, "internal-error"),
    ],
)
def test_what_the_domain_raises_becomes_a_problem(app: FastAPI, error: str, status: int, kind: str) -> None:
    answer = call(app, "DELETE", f"/api/wishes/{error}")

    assert (is_problem(answer)["type"], answer.status_code) == (PROBLEM_BASE + kind, status)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_answered_with_its_status_and_title(app: FastAPI, kind: str) -> None:
    body = is_problem(call(app, "DELETE", f"/api/wishes/{kind}"))

    assert (body["status"], body["title"]) == KINDS[kind]


@pytest.mark.parametrize(("error", "seconds"), [("LedgerBusy", "1"), ("StoreUnavailable", "2")])
def test_a_503_says_when_to_come_back(app: FastAPI, error: str, seconds: str) -> None:
    assert call(app, "DELETE", f"/api/wishes/{error}").headers["retry-after"] == seconds


@pytest.mark.parametrize(
    ("error", "challenge"),
    [
        ("unauthenticated", 'Bearer realm="session-ledger"'),
        ("invalid-credential", 'Bearer realm="session-ledger", error="invalid_token"'),
        ("scoped", 'Bearer realm="session-ledger", error="insufficient_scope", scope="users:admin"'),
        ("invalid-credentials-form", 'Bearer realm="session-ledger", error="invalid_request"'),
        ("two-credentials", 'Bearer realm="session-ledger", error="invalid_request"'),
    ],
)
def test_challenges_are_those_of_rfc_6750(app: FastAPI, error: str, challenge: str) -> None:
    assert call(app, "DELETE", f"/api/wishes/{error}").headers["www-authenticate"] == challenge


def test_a_problem_may_bring_headers_and_members_of_its_own(app: FastAPI) -> None:
    answer = call(app, "DELETE", "/api/wishes/foreseen")

    assert answer.headers["x-more"] == "1"
    assert is_problem(answer) | {"limit": 3, "detail": "So it is."} == is_problem(answer)


def test_the_instance_is_the_request() -> None:
    request_id = uuid4()
    body = json.loads(bytes(problem_response(Problem("not-found"), request_id).body))

    assert body["instance"] == f"urn:uuid:{request_id}"


def test_text_that_utf_8_cannot_hold_does_not_break_the_answer() -> None:
    assert json.loads(bytes(problem_response(Problem("not-found", "\ud800"), None).body))["detail"] == "\ud800"


def faults(answer: httpx.Response) -> list[dict[str, str]]:
    assert is_problem(answer)["type"] == PROBLEM_BASE + "invalid-request"
    return list(answer.json()["errors"])


def test_what_does_not_fit_is_pointed_at(app: FastAPI) -> None:
    body = {"count": "canary-value", "a/b~c": 1, "inner": {"x": "canary"}, "picky": "canary"}
    places = [{**fault, "detail": ""} for fault in faults(call(app, "POST", "/api/wishes?limit=canary", json=body))]

    assert {"parameter": "limit", "detail": ""} in places
    for pointer in ("/user_id", "/count", "/a~1b~0c", "/inner/x", "/picky"):
        assert {"pointer": pointer, "detail": ""} in places


def test_the_whole_body_is_pointed_at_by_the_empty_pointer(app: FastAPI) -> None:
    assert [fault["pointer"] for fault in faults(call(app, "POST", "/api/wishes", json=[1]))] == [""]


def test_a_thousand_faults_are_answered_with_twenty(app: FastAPI) -> None:
    assert len(faults(call(app, "POST", "/api/wishes", json={f"x{n}": 1 for n in range(1_000)}))) == 20


def test_unknown_paths_are_problems(app: FastAPI) -> None:
    assert is_problem(call(app, "GET", "/nowhere"))["type"] == PROBLEM_BASE + "not-found"


def test_a_405_names_every_method_of_the_path(app: FastAPI) -> None:
    answer = call(app, "PUT", "/api/wishes")

    assert is_problem(answer)["type"] == PROBLEM_BASE + "method-not-allowed"
    assert answer.headers["allow"] == "GET, POST"


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from ([part["$ref"]] if "$ref" in part else [])
        for member in part.values():
            yield from references(member)
    if isinstance(part, list):
        for item in part:
            yield from references(item)


def test_problems_are_described_with_schema_and_examples(app: FastAPI) -> None:
    document = app.openapi()
    responses = document["paths"]["/api/wishes"]["post"]["responses"]
    documented = responses["404"]["content"]["application/problem+json"]

    assert list(documented["examples"]) == ["session-not-found", "not-found"]
    assert list(responses["422"]["content"]) == ["application/problem+json"]
    assert {ref.rpartition("/")[2] for ref in references(document)} <= set(document["components"]["schemas"])
