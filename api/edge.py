"""The outermost layer: what holds for every request and response, whichever route or error produced it."""

import logging
from functools import lru_cache
from ipaddress import ip_address, ip_network
from json.encoder import encode_basestring_ascii as quote
from time import perf_counter, time
from urllib.parse import parse_qsl
from uuid import UUID

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.durations import RequestDurations
from api.errors import Problem, problem_of, problem_response
from api.ids import new_uuid7
from api.logs import AccessLog, timestamp

MAX_BODY = 16 * 1024
SECRET_PARAMETERS = frozenset({"access_token", "token", "session"})

# WEB-07; a header that the application sets itself stands.
HEADERS = (
    (b"strict-transport-security", b"max-age=31536000; includeSubDomains"),
    (b"x-content-type-options", b"nosniff"),
    (
        b"content-security-policy",
        b"default-src 'none'; base-uri 'none'; object-src 'none'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_HEADER_NAMES = frozenset(name for name, _ in HEADERS)

_errors = logging.getLogger("ledger.errors")


class Edge:
    """ASGI middleware around the whole application.

    Gives each request its id, refuses bodies over 16 KiB (T-13), credentials in the URL (WEB-03) and TRACE (WEB-10),
    dresses each response (WEB-07), logs one line, counts (OBS-05), and turns an escaped exception into a problem
    (OBS-07). `log_client=False` leaves the client's network out of the log.
    """

    def __init__(self, app: ASGIApp, durations: RequestDurations | None = None, *, log_client: bool = True) -> None:
        self._app = app
        self._durations = durations or RequestDurations()
        self._log_client = log_client
        self._access_log = AccessLog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        try:
            exchange.check()
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:
            await exchange.fail(error)
        finally:
            exchange.count(self._durations)
            self._access_log.add(exchange.line(self._log_client))


class _Exchange:
    """One request and its response."""

    __slots__ = (
        *("_finished", "_read", "_receive", "_request_id", "_route", "_scope", "_seconds"),
        *("_send", "_started_at", "_status"),
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._started_at = perf_counter()
        self._read = 0
        self._status: int | None = None
        self._finished = False
        request_id = scope.setdefault("state", {})["request_id"] = new_uuid7()
        self._request_id = str(request_id)

    def check(self) -> None:
        """Raise the problem of a request that the application need not see."""
        if self._scope["method"] == "TRACE":
            raise Problem("method-not-allowed", headers={"Allow": "DELETE, GET, POST"})
        if self._scope["path"].endswith("\n"):
            raise Problem("not-found")  # the router would overlook it
        if self._scope["query_string"]:
            self._check_query(self._scope["query_string"])
        for name, value in self._scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value[:20]) > MAX_BODY:
                raise _too_large()

    def _check_query(self, query: bytes) -> None:
        names = (name.lower() for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True))
        if not SECRET_PARAMETERS.isdisjoint(names):
            raise Problem("credential-in-url", "Send the credential in the Authorization header or as a cookie.")

    async def receive(self) -> Message:
        """Pass the body on, counted as it comes: neither its length header nor its absence is believed (T-13)."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            if self._read > MAX_BODY:
                raise _too_large()
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            message["headers"] = self._dressed(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            self._finished = not message.get("more_body", False)
        await self._send(message)

    def _dressed(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        own = {name for name, _ in headers}
        standing = HEADERS if own.isdisjoint(_HEADER_NAMES) else [h for h in HEADERS if h[0] not in own]
        return [*headers, *standing, (b"x-request-id", self._request_id.encode())]

    async def fail(self, error: Exception) -> None:
        """Answer for an exception that nobody caught; half a response is cut off, so that it cannot look whole."""
        problem = problem_of(error)
        if problem.status >= 500 and problem is not error:
            _errors.error("unhandled", exc_info=error, extra={"fields": {"request_id": self._request_id}})
        if self._status is None:
            request_id: UUID = self._scope["state"]["request_id"]
            await problem_response(problem, request_id)(self._scope, self._receive, self.send)
        elif not self._finished:
            raise error

    def count(self, durations: RequestDurations) -> None:
        """The request is over."""
        self._seconds = perf_counter() - self._started_at
        self._route = _route(self._scope)
        scheme = "https" if self._scope.get("scheme") == "https" else "http"
        durations.add(self._scope["method"], scheme, self._route, self._status, self._seconds)

    def line(self, with_client: bool) -> str:
        """For the access log: a JSON object, never with a query string (WEB-03), every character escaped (T-08)."""
        client = self._scope.get("client") if with_client else None
        return (
            f'{{"time":"{timestamp(time())}","logger":"ledger.access","method":{quote(self._scope["method"][:16])},'
            f'"route":{quote(self._route) if self._route else "null"},"status":{self._status or "null"},'
            f'"duration_ms":{self._seconds * 1000:.2f},'
            f'"client":{_network(client[0]) if client else "null"},"request_id":"{self._request_id}"}}'
        )


def _too_large() -> Problem:
    return Problem("body-too-large", f"A body may have {MAX_BODY} bytes.")


def _route(scope: Scope) -> str:
    """The route's template, or nothing: a path that matches none may hold a user's id or a token (D9, WEB-03).

    `scope["route"]` leaves out the prefix of an included router; FastAPI's own context has the whole path.
    """
    route = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    template: str = getattr(route, "path_format", "")
    return template


def network_of(address: str) -> str | None:
    """Where a request came from, as far as a log may know: a person's address is personal data, his network is not."""
    try:
        version = ip_address(address).version
    except ValueError:
        return None
    return str(ip_network((address, 24 if version == 4 else 48), strict=False))


@lru_cache(maxsize=4096)
def _network(address: str) -> str:
    network = network_of(address)
    return quote(network) if network else "null"
