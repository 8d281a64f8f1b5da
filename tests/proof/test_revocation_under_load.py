"""SES-12 on two servers under load: what starts after the 2xx of a revocation is refused, everywhere, every way in."""

import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.api.client import ADMIN, AUDIENCE, BOOTSTRAP_KEY, ISSUER, Headers, SignedIn, bearer, write_jwks
from tests.postgres import Database
from tests.proof.history import History
from tests.proof.watch import Watch
from tests.scripts.test_server import Server

CAP = 3
ROUNDS = 2
CHECKERS, REVOKERS = 4, 3
CHECKS_AFTER = 3


class Revocation(NamedTuple):
    """What to send by session `a` or as administrator, and which of the sessions `a`, `b` and `c` it ends."""

    ends: str
    method: str
    path: str
    body: dict[str, Any] | None = None

    @property
    def is_by_administrator(self) -> bool:
        return self.path.startswith("/api/users") or "user_id" in (self.body or {})


ANY_ONE = "any one"
REVOCATIONS = [
    Revocation("a", "DELETE", "/api/sessions/{a.id}"),
    Revocation("b", "DELETE", "/api/sessions/{b.id}"),
    Revocation("bc", "DELETE", "/api/sessions"),
    Revocation("bc", "POST", "/api/sessions/revoke-all", {"except_current": True}),
    Revocation("abc", "POST", "/api/sessions/revoke-all"),
    Revocation("a", "POST", "/api/auth/signout"),
    Revocation("b", "DELETE", "/api/users/{a.user_id}/sessions/{b.id}"),
    Revocation("abc", "DELETE", "/api/users/{a.user_id}/sessions"),
    Revocation("abc", "POST", "/api/users/{a.user_id}/disable"),
    Revocation("a", "POST", "/api/sessions", {"user_id": "{a.user_id}", "replaces": "{a.token}"}),
    Revocation(ANY_ONE, "POST", "/api/sessions", {"user_id": "{a.user_id}"}),
]


class Client:
    """Speaks to each of the servers over a connection of its own. For one thread."""

    def __init__(self, servers: dict[str, Server]) -> None:
        self._connections = {name: HTTPConnection("127.0.0.1", server.port) for name, server in servers.items()}

    def send(
        self, process: str, method: str, path: str, headers: Headers, body: Any = None
    ) -> tuple[int, dict[str, Any]]:
        connection = self._connections[process]
        as_json = {"Content-Type": "application/json"} if body is not None else {}
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {**headers, **as_json})
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else {}

    def is_let_in(self, process: str, headers: Headers) -> bool:
        status, problem = self.send(process, "GET", "/api/auth/session", headers)
        assert status in (200, 401), problem
        return status == 200

    def sign_in(self, process: str, user_id: str) -> SignedIn:
        status, told = self.send(process, "POST", "/api/sessions", ADMIN, {"user_id": user_id})
        assert status == 201, told
        return SignedIn(user_id, told["session"]["id"], told["token"], told["cookie"])

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()


@pytest.fixture
def servers(database: Database, tmp_path: Path) -> Iterator[dict[str, Server]]:
    """Two, that record each use, so that touches race revocations, too."""
    settings = {
        "LEDGER_DATABASE_URL": database.url,
        "LEDGER_KEYS_DATABASE_URL": database.keys_url,
        "LEDGER_MASTER_KEY_FILE": str(tmp_path / "master.key"),
        "LEDGER_BOOTSTRAP_API_KEY": BOOTSTRAP_KEY,
        "LEDGER_MAX_SESSIONS_PER_USER": str(CAP),
        "LEDGER_TOUCH_INTERVAL": "0",
        "LEDGER_JWT_ISSUER": ISSUER,
        "LEDGER_JWT_AUDIENCE": AUDIENCE,
        "LEDGER_JWT_JWKS": str(write_jwks(tmp_path / "jwks.json")),
    }
    if database.owner_url:
        settings["LEDGER_DATABASE_OWNER_URL"] = database.owner_url
    with ExitStack() as stack:
        started = {}
        for name in ("one", "two"):
            directory = tmp_path / name
            directory.mkdir()
            started[name] = Server(directory, **settings)
            stack.callback(started[name].close)
        yield {name: server.await_start() for name, server in started.items()}


def test_nothing_that_starts_after_the_2xx_of_a_revocation_is_let_in(servers: dict[str, Server]):
    history = History()
    watch = Watch(history, lambda: Client(servers).is_let_in, servers)
    rounds = [(f"user-{n}", revocation) for n, revocation in enumerate(REVOCATIONS * ROUNDS)]
    random.shuffle(rounds)
    with watch.by_threads(CHECKERS), ThreadPoolExecutor(REVOKERS) as pool:
        for done in [pool.submit(Revoker(servers, history, watch).play, *each) for each in rounds]:
            done.result()
    assert history.contradictions() == []
    assert history.never_let_in() == set()
    assert len(history.after_the_end()) > 500


class Revoker:
    """Plays a round: signs a user in thrice, lets all that be checked, and ends some of it."""

    def __init__(self, servers: dict[str, Server], history: History, watch: Watch) -> None:
        self._client = Client(servers)
        self._processes = [*servers]
        self._history = history
        self._watch = watch

    def play(self, user_id: str, revocation: Revocation) -> None:
        sessions = {name: self._client.sign_in(self._any_process(), user_id) for name in "abc"}
        for session in sessions.values():
            self._watch.add(session.id, ways_in(session))
        self._watch.await_each(1)
        self._revoke(revocation, sessions)
        self._watch.await_each(CHECKS_AFTER)
        self._watch.drop(session.id for session in sessions.values())
        self._client.close()

    def _revoke(self, revocation: Revocation, sessions: dict[str, SignedIn]) -> None:
        ends = sessions.keys() if revocation.ends == ANY_ONE else revocation.ends
        ending = {sessions[name].id for name in ends}
        headers = ADMIN if revocation.is_by_administrator else random.choice([*ways_in(sessions["a"]).values()])
        body = revocation.body and {
            name: value.format(**sessions) if isinstance(value, str) else value
            for name, value in revocation.body.items()
        }
        self._history.asks_to_end(ending)
        status, answer = self._client.send(
            self._any_process(), revocation.method, revocation.path.format(**sessions), headers, body
        )
        acknowledged = time.monotonic()
        assert status in (200, 201, 204), answer
        if revocation.ends == ANY_ONE:
            ending = self._evicted(sessions["a"].user_id)
        self._history.ended(ending, at=acknowledged)

    def _evicted(self, user_id: str) -> set[str]:
        path = f"/api/users/{user_id}/sessions?status=ended"
        _, answer = self._client.send(self._any_process(), "GET", path, ADMIN)
        [evicted] = answer["sessions"]
        assert evicted["end_reason"] == "session_limit"
        return {evicted["id"]}

    def _any_process(self) -> str:
        return random.choice(self._processes)


def ways_in(session: SignedIn) -> dict[str, Headers]:
    """With an access token that is good by the real clock."""
    now = int(time.time())
    return {**session.ways_in, "access token": bearer(session.access_token(iat=now, exp=now + 600))}
