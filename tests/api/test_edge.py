"""What holds for every request and response (T-13, T-08, WEB-03, WEB-07, WEB-10, OBS-07)."""

import asyncio
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from fastapi import APIRouter, FastAPI, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.edge import HEADERS, MAX_BODY, Edge
from api.errors import Problem, install


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, list[str]] = field(default_factory=dict)
    body: bytes = b""
    chunks_read: int = 0

    @property
    def kind(self) -> str:
        return str(json.loads(self.body)["type"]).rpartition("/")[2]


def exchange(app: ASGIApp, method: str = "GET", path: str = "/", body: Iterable[bytes] = (), **scope: Any) -> Answer:
    """One request through `app`, chunk by chunk."""
    answer, chunks = Answer(), iter(body)

    async def receive() -> Message:
        answer.chunks_read += 1
        chunk = next(chunks, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            for name, value in message["headers"]:
                answer.headers.setdefault(name.decode(), []).append(value.decode())
        answer.body += message.get("body", b"")

    whole: Scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "root_path": ""}
    whole.update({"query_string": b"", "headers": [], "client": ("192.0.2.7", 5), "scheme": "http"}, **scope)

    async def run() -> None:
        await app(whole, receive, send)

    asyncio.run(run())
    return answer


def answering(*headers: tuple[bytes, bytes]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        await send({"type": "http.response.body", "body": b"ok"})

    return app


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["more_body"]:
        pass
    await answering()(scope, receive, send)


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("canary")


async def failing_half_way(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise RuntimeError("canary")


@pytest.fixture
def service() -> ASGIApp:
    app, router = FastAPI(), APIRouter()

    @router.post("/things/{id}")
    async def read(id: str, request: Request) -> int:
        return len(await request.body())

    @router.get("/things/{id}")
    async def fail(id: str) -> None:
        raise RuntimeError("canary")

    app.include_router(router, prefix="/api")
    install(app)
    return Edge(app)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.INFO)
    return lambda: [
        json.loads(line)
        for record in caplog.records
        if record.name == "ledger.access"
        for line in record.getMessage().splitlines()
    ]


class TestHeaders:
    @pytest.mark.parametrize(
        ("app", "status"), [(answering(), 200), (failing, 500), (reading, 413)], ids=["200", "500", "413"]
    )
    def test_they_are_on_every_answer_once(self, app: ASGIApp, status: int) -> None:
        answer = exchange(Edge(app), body=[b"x" * (MAX_BODY + 1)])

        assert answer.status == status
        for name, value in HEADERS:
            assert answer.headers[name.decode()] == [value.decode()]

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [("GET", "/nowhere", 404), ("PUT", "/api/things/1", 405), ("GET", "/api/things/1", 500)],
    )
    def test_the_frameworks_own_errors_carry_them(self, service: ASGIApp, method: str, path: str, status: int) -> None:
        answer = exchange(service, method, path)

        assert answer.status == status
        assert answer.headers["content-type"] == ["application/problem+json"]
        assert answer.headers["content-security-policy"][0].startswith("default-src 'none'")

    def test_one_that_the_application_sets_stands(self) -> None:
        answer = exchange(Edge(answering((b"cache-control", b"max-age=60"))))

        assert answer.headers["cache-control"] == ["max-age=60"]
        assert answer.headers["referrer-policy"] == ["no-referrer"]


class TestBodyLimit:
    def test_a_body_of_exactly_the_limit_passes(self) -> None:
        assert exchange(Edge(reading), body=[b"x" * MAX_BODY]).status == 200

    def test_a_length_over_the_limit_is_refused_before_anything_is_read(self) -> None:
        answer = exchange(Edge(reading), headers=[(b"content-length", b"16385")], body=[b"x"] * 99)

        assert (answer.status, answer.kind, answer.chunks_read) == (413, "body-too-large", 0)

    def test_an_absurd_length_is_refused(self) -> None:
        assert exchange(Edge(reading), headers=[(b"content-length", b"9" * 9_000)]).status == 413

    @pytest.mark.parametrize("told", [[], [(b"content-length", b"5")], [(b"content-length", b"-1")]])
    def test_an_endless_stream_is_refused_where_it_passes_the_limit(self, told: list[tuple[bytes, bytes]]) -> None:
        answer = exchange(Edge(reading), headers=told, body=(b"x" * 1024 for _ in range(1_000_000)))

        assert (answer.status, answer.kind, answer.chunks_read) == (413, "body-too-large", 17)

    def test_fastapi_passes_the_refusal_on(self, service: ASGIApp) -> None:
        answer = exchange(service, "POST", "/api/things/1", body=[b"x" * 9_000] * 2)

        assert (answer.status, answer.kind) == (413, "body-too-large")


class TestRequestId:
    def test_it_is_a_fresh_uuid_of_version_7_in_state_and_answer(self) -> None:
        states: list[dict[str, Any]] = [{}, {}]
        answers = [exchange(Edge(answering()), state=state) for state in states]

        ids = [UUID(answer.headers["x-request-id"][0]) for answer in answers]
        assert [state["request_id"] for state in states] == ids
        assert ids == sorted(set(ids))
        assert ids[0].version == 7

    def test_a_clients_own_is_not_adopted(self) -> None:
        answer = exchange(Edge(answering()), headers=[(b"x-request-id", b"mine")])

        assert answer.headers["x-request-id"] != ["mine"]

    def test_a_problem_names_it(self, service: ASGIApp) -> None:
        answer = exchange(service, "GET", "/nowhere")

        assert json.loads(answer.body)["instance"] == f"urn:uuid:{answer.headers['x-request-id'][0]}"


class TestSecretsInTheUrl:
    @pytest.mark.parametrize(
        "query", [b"access_token=canary", b"a=1&token=canary", b"session", b"TOKEN=canary", b"%74oken=canary", b"token"]
    )
    def test_they_are_refused_and_in_no_log(self, query: bytes, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(0)
        answer = exchange(Edge(answering()), query_string=query)

        assert (answer.status, answer.kind) == (400, "credential-in-url")
        assert "canary" not in answer.body.decode() + caplog.text

    @pytest.mark.parametrize("query", [b"session_id=1", b"q=token", b"tokens=1", b"status=all&limit=5", b"\xff=%ff"])
    def test_other_parameters_pass(self, query: bytes) -> None:
        assert exchange(Edge(answering()), query_string=query).status == 200


class TestAccessLog:
    def test_a_line_tells_who_asked_what_and_how_it_went(self, service: ASGIApp, lines: Any) -> None:
        answer = exchange(service, "POST", "/api/things/secret", body=[b"x"], query_string=b"q=canary")

        (line,) = lines()
        assert line["duration_ms"] >= 0
        assert {**line, "time": "", "duration_ms": 0} == {
            "time": "",
            "logger": "ledger.access",
            "method": "POST",
            "route": "/api/things/{id}",
            "status": 200,
            "duration_ms": 0,
            "client": "192.0.2.0/24",
            "request_id": answer.headers["x-request-id"][0],
        }

    def test_the_clients_address_can_be_left_out(self, lines: Any) -> None:
        exchange(Edge(answering(), log_client=False))

        assert lines()[0]["client"] is None

    @pytest.mark.parametrize(
        "path", ["/a\r\nb", "/\u2028", '/","status":200,"x":"', "/api/users/alice", "/" + "x" * 5_000]
    )
    def test_a_path_that_matches_no_route_is_not_logged_as_it_may_name_a_person(
        self, path: str, lines: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        exchange(Edge(failing), path=path)

        assert lines()[0]["route"] is None
        (line,) = (record.getMessage() for record in caplog.records if record.name == "ledger.access")
        assert path[1:] not in line

    @pytest.mark.parametrize(
        ("address", "network"),
        [("192.0.2.7", "192.0.2.0/24"), ("2001:db8:1:2::7", "2001:db8:1::/48"), ("not an address", None)],
    )
    def test_of_an_address_the_network_is_told(self, address: str, network: str | None, lines: Any) -> None:
        exchange(Edge(answering()), client=(address, 5))

        assert lines()[0]["client"] == network

    def test_a_client_that_leaves_is_logged_too(self, lines: Any) -> None:
        async def cancelled(scope: Scope, receive: Receive, send: Send) -> None:
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            exchange(Edge(cancelled))
        assert lines()[0]["status"] is None


class TestLastResort:
    @pytest.mark.parametrize("through_fastapi", [True, False])
    def test_an_escaped_exception_is_a_500_that_tells_nothing_and_is_logged_once(
        self, service: ASGIApp, through_fastapi: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        answer = exchange(service if through_fastapi else Edge(failing), "GET", "/api/things/1")

        assert (answer.status, answer.kind) == (500, "internal-error")
        assert "canary" not in answer.body.decode()
        (record,) = (record for record in caplog.records if record.name == "ledger.errors")
        assert record.exc_info and str(record.exc_info[1]) == "canary"
        assert record.__dict__["fields"] == {"request_id": answer.headers["x-request-id"][0]}

    def test_half_an_answer_is_cut_off(self) -> None:
        with pytest.raises(RuntimeError):
            exchange(Edge(failing_half_way))

    def test_a_problem_raised_below_is_answered_as_such(self, caplog: pytest.LogCaptureFixture) -> None:
        async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
            raise Problem("busy")

        assert exchange(Edge(refusing)).headers["retry-after"] == ["1"]
        assert caplog.records == []


def test_trace_is_refused(service: ASGIApp) -> None:
    answer = exchange(service, "TRACE", "/api/things/1")

    assert (answer.status, answer.kind, answer.headers["allow"]) == (405, "method-not-allowed", ["DELETE, GET, POST"])


@pytest.mark.parametrize("path", ["/api/things/1\n", "/api/things/\n", "/api/things/1\n\n"])
def test_a_path_with_a_newline_leads_nowhere(service: ASGIApp, path: str) -> None:
    answer = exchange(service, "POST", path)

    assert (answer.status, answer.kind) == (404, "not-found")


def test_the_lifespan_passes_through() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any: ...

    asyncio.run(Edge(app)({"type": "lifespan"}, nothing, nothing))
    assert seen == ["lifespan"]
