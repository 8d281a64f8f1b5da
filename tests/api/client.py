"""The application in this process, and the credentials that tests send to it."""

from __future__ import annotations

import asyncio
import json
import time
import warnings
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import ECKey

from api.app import create_app
from api.service import Service
from api.settings import Settings
from domain.ledger import Request
from projections.api_keys import OPERATOR
from projections.session_views import SessionView
from store.api_keys import ApiKey, Scope, create_key, revoke_key
from tests.clock import NOON, ManualClock
from tests.postgres import Database

ORIGIN = "https://ledger.example"
BOOTSTRAP_KEY = "the-first-key-of-the-tests-with-every-scope"
ISSUER, AUDIENCE = "https://id.example", ORIGIN
SIGNING_KEY = ECKey.generate_key("P-256", {"kid": "ec"})

T = TypeVar("T")
Headers = dict[str, str]
Call = tuple[str, str]


def bearer(secret: str) -> Headers:
    return {"Authorization": f"Bearer {secret}"}


def by_cookie(token: str) -> Headers:
    return {"Cookie": f"__Host-sid={token}"}


ADMIN = bearer(BOOTSTRAP_KEY)


def standing_claims() -> dict[str, Any]:
    """Of the trusted issuer, good for ten minutes from noon."""
    noon = NOON.timestamp()
    return {"iss": ISSUER, "aud": AUDIENCE, "client_id": "web", "iat": noon, "exp": noon + 600, "jti": str(uuid4())}


def access_token(**claims: Any) -> str:
    """A JWT with the standing claims and these; a claim of None is left out."""
    header = {"alg": "ES256", "typ": "at+jwt", "kid": "ec"}
    whole = {name: value for name, value in {**standing_claims(), **claims}.items() if value is not None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return jwt.encode(header, whole, SIGNING_KEY, default_type=None)


def settings_of(database: Database, directory: Path, **settings: Any) -> Settings:
    """Settings for an application on this database, with its other files in `directory`."""
    standing = {
        "database_url": database.url,
        "database_owner_url": database.owner_url,
        "keys_database_url": database.keys_url,
        "master_key_file": directory / "master.key",
        "bootstrap_api_key": BOOTSTRAP_KEY,
        "jwt_issuer": ISSUER,
        "jwt_audience": AUDIENCE,
        "jwt_jwks": str(write_jwks(directory / "jwks.json")),
        "guess_limit": 0,  # tests send bad credentials by the hundred while their clock stands still
    }
    return Settings(**{**standing, **settings})


def by_hand(header: object, payload: object, sign: Callable[[bytes], bytes] = lambda _: b"x") -> str:
    """What joserfc would refuse to make."""
    signing_input = b".".join(encoded(json.dumps(part).encode()) for part in (header, payload))
    return b".".join((signing_input, encoded(sign(signing_input)))).decode()


def encoded(part: bytes) -> bytes:
    return urlsafe_b64encode(part).rstrip(b"=")


def write_jwks(path: Path) -> Path:
    path.write_text(json.dumps({"keys": [SIGNING_KEY.as_dict(private=False)]}))
    return path


@dataclass(frozen=True)
class SignedIn:
    """Somebody's session, as the sign-in service was told of it."""

    user_id: str
    id: str
    token: str
    cookie: str

    @property
    def bearer(self) -> Headers:
        return bearer(self.token)

    @property
    def by_cookie(self) -> Headers:
        return by_cookie(self.token)

    @property
    def ways_in(self) -> dict[str, Headers]:
        """Every credential of this session."""
        return {"cookie": self.by_cookie, "token": self.bearer, "access token": bearer(self.access_token())}

    def access_token(self, **claims: Any) -> str:
        return access_token(**{"sub": self.user_id, "sid": self.id, **claims})


class Api:
    """An application that runs, and HTTP to it without a network."""

    def __init__(self, app: FastAPI, client: httpx.AsyncClient, portal: BlockingPortal, clock: ManualClock) -> None:
        self.app, self.clock = app, clock
        self._client, self._portal = client, portal

    @property
    def service(self) -> Service:
        return self.app.state.service

    def seen_from(self, address: str) -> Api:
        """The same application, called from another address."""
        transport = httpx.ASGITransport(self.app, client=(address, 50_000))
        client = httpx.AsyncClient(transport=transport, base_url=ORIGIN)
        return Api(self.app, client, self._portal, self.clock)

    def request(self, method: str, path: str, headers: Any = None, **more: Any) -> httpx.Response:
        return self._portal.call(lambda: self._client.request(method, path, headers=headers, **more))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The application again, for a client that lives in another event loop."""
        if scope["type"] != "http":
            raise NotImplementedError("the lifespan of this application runs already")
        sent, answered = [await receive()], []
        while sent[-1].get("more_body"):
            sent.append(await receive())
        await asyncio.wrap_future(self._portal.start_task_soon(self._answer, scope, iter(sent), answered.append))
        for message in answered:
            await send(message)

    async def _answer(self, scope: Any, sent: Iterator[Any], keep: Callable[[Any], None]) -> None:
        async def receive() -> Any:
            return next(sent, {"type": "http.disconnect"})

        async def send(message: Any) -> None:
            keep(message)

        await self.app(scope, receive, send)

    def get(self, path: str, headers: Any = None, **more: Any) -> httpx.Response:
        return self.request("GET", path, headers, **more)

    def post(self, path: str, headers: Any = None, **more: Any) -> httpx.Response:
        return self.request("POST", path, headers, **more)

    def delete(self, path: str, headers: Any = None, **more: Any) -> httpx.Response:
        return self.request("DELETE", path, headers, **more)

    def ask(self, question: Callable[..., Awaitable[T]], *about: Any) -> T:
        """The answer of a coroutine function, on the application's own loop."""
        return self._portal.call(question, *about)

    def at_once(self, calls: Iterable[tuple[str, str, Headers]]) -> list[httpx.Response]:
        """All of these requests together; their answers in the same order."""

        async def send() -> list[httpx.Response]:
            return await asyncio.gather(*(self._client.request(m, path, headers=h) for m, path, h in calls))

        return self._portal.call(send)

    def begin(self, body: dict[str, Any], **headers: str) -> httpx.Response:
        """POST /api/sessions as the sign-in service."""
        return self.post("/api/sessions", {**ADMIN, **headers}, json=body)

    def sign_in(self, user_id: str = "alice", **body: Any) -> SignedIn:
        answer = self.begin({"user_id": user_id, **body})
        assert answer.status_code == 201, answer.text
        told = answer.json()
        return SignedIn(user_id, told["session"]["id"], told["token"], told["cookie"])

    def sessions(self, headers: Headers, query: str = "") -> list[dict[str, Any]]:
        answer = self.get(f"/api/sessions{query}", headers)
        assert answer.status_code == 200, answer.text
        return answer.json()["sessions"]

    def ids(self, headers: Headers, query: str = "") -> list[str]:
        return [session["id"] for session in self.sessions(headers, query)]

    def is_active(self, headers: Headers) -> bool:
        status = self.get("/api/auth/session", headers).status_code
        assert status in (200, 401)
        return status == 200

    def session(self, session_id: UUID) -> SessionView | None:
        """As every check judges it now."""
        return self._portal.call(self.service.sessions.by_id, session_id)

    def active_sessions(self, user_id: str) -> list[SessionView]:
        return self._portal.call(self.service.sessions.active, self.service.keys.pseudonym(user_id))

    def key(self, *scopes: Scope) -> tuple[ApiKey, str]:
        return create_key(self.service.ledger, "test", scopes, Request(OPERATOR, uuid4()))

    def revoke_key(self, key: ApiKey) -> bool:
        return revoke_key(self.service.ledger, key.key_id, Request(OPERATOR, uuid4()))

    def log(self) -> list[tuple[str, str]]:
        """The facts so far, but for those about API keys: topic and actor."""
        service = self.service
        notifications = service.recorder.select_notifications(1, 100_000)
        facts = [(n.topic, service.mapper.to_domain_event(n)) for n in notifications]
        return [(topic, fact.actor) for topic, fact in facts if not topic.startswith("ApiKey")]  # type: ignore[attr-defined]

    def operations(self) -> list[Call]:
        """Every route, as method and template."""
        paths = self.app.openapi()["paths"]
        return [(method.upper(), path) for path, operations in paths.items() for method in operations]


@contextmanager
def running(settings: Settings, clock: ManualClock, peer: str = "192.0.2.7") -> Iterator[Api]:
    app = create_app(settings, clock)
    with start_blocking_portal() as portal:
        lifespan = app.router.lifespan_context(app)
        with portal.wrap_async_context_manager(lifespan):
            transport = httpx.ASGITransport(app, client=(peer, 50_000))
            client = httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers={"User-Agent": "tests"})
            yield Api(app, client, portal, clock)


def kind(answer: httpx.Response) -> str:
    """Which problem an answer is."""
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    body = answer.json()
    assert body["status"] == answer.status_code
    return body["type"].rpartition("/")[2]


def told(answer: httpx.Response) -> tuple[int, str | None]:
    """Status and kind: what most tests want to know of a refusal."""
    is_problem = answer.headers.get("Content-Type") == "application/problem+json"
    return answer.status_code, kind(answer) if is_problem else None


def same_but_request_id(answer: httpx.Response) -> tuple[int, dict[str, str], str]:
    """An answer without what differs from request to request by design."""
    request_id = answer.headers["X-Request-Id"]
    headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    return answer.status_code, headers, answer.text.replace(request_id, "…")


def settled(api: Api) -> None:
    """Wait until the policies have answered the whole log, and seal it: from here on nothing happens by itself."""
    until(lambda: all(policy.lag_events == 0 for policy in api.service.follower.progress()))
    api.service.sealer.seal()


def until(is_true: Callable[[], bool], *, seconds: float = 20) -> None:
    """Wait for something that happens on its own."""
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
