"""The threats that are met at the edge. Each has a test that is named after it, here or beside its subject."""

import hmac
import json
import os
import re
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from store.api_keys import PREFIX, Scope, digest
from tests.api.client import (
    ADMIN,
    BOOTSTRAP_KEY,
    Api,
    Call,
    Headers,
    SignedIn,
    access_token,
    bearer,
    by_cookie,
    same_but_request_id,
    settled,
    told,
)
from tests.api.corpus import ALL, STRANGER, barred, ended, expired, forged
from tests.api.test_credentials import GUARDED, OF_USERS, SCOPED, send
from tests.scripts.test_server import KEY, Server
from tests.store.given import everything

ROOT = Path(__file__).parents[2]
ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # a matter of the code, not of the store
MIB = 2**20

MET = ["01", "03", "04", "07", "08", "09", "12", "13", "14", "19", "20", "21", "22", "26"]


@pytest.mark.parametrize("threat", MET)
def test_a_threat_that_counts_as_met_has_a_test_named_after_it(threat: str):
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert re.search(rf"def test_t_{threat}_", tests)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers in one directory; none outlives the test."""
    with ExitStack() as stack:

        def start_one(**settings: str) -> Server:
            server = Server(tmp_path, **settings)
            stack.callback(server.close)
            return server.await_start()

        yield start_one


# -- T-01: a stolen token


@pytest.mark.parametrize("loot", ["token", "cookie", "access token"])
def test_t_01_whoever_is_robbed_sees_the_thief_and_ends_him_with_one_call(api: Api, loot: str):
    there = api.sign_in(user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0")
    here, thief = api.sign_in(), there.ways_in[loot]
    assert api.is_active(thief)
    [found] = [session for session in api.sessions(here.bearer) if session["device"] == "Firefox on Linux"]
    assert api.delete(f"/api/sessions/{found['id']}", here.bearer).status_code == 200
    for headers in (thief, *there.ways_in.values()):
        assert told(api.get("/api/auth/session", headers)) == (401, "invalid-credential")
    assert api.is_active(here.bearer)


# -- T-03: another user's sessions


def test_t_03_no_route_leads_one_user_to_another(api: Api):
    details = {"ip_address": "198.51.100.213", "user_agent": "Canary/1"}
    bob = api.sign_in("bob", **details)
    settled(api)
    for call in GUARDED:
        for way in ("cookie", "token", "access token"):
            alice = api.sign_in()
            before = of_user(api, "bob")
            answer = call_about(api, call, alice.ways_in[way], "bob", bob.id)
            assert (call, [canary for canary in (bob.id, "198.51", "Canary") if canary in answer.text]) == (call, [])
            assert (call, answer.status_code) == (call, expected_about_another(call))
            assert of_user(api, "bob") == before, call
    assert api.is_active(bob.bearer)


def call_about(api: Api, call: Call, headers: Any, user_id: str, session_id: str) -> httpx.Response:
    method, template = call
    body = {"json": {"user_id": user_id}} if call == ("POST", "/api/sessions") else {}
    return api.request(
        method, template.format(user_id=user_id, session_id=session_id, event_id=session_id), headers, **body
    )


def expected_about_another(call: Call) -> int:
    if call in SCOPED:
        return 403
    return 404 if "{session_id}" in call[1] else 200


def of_user(api: Api, user_id: str) -> list[str]:
    """Every row that is about a user."""
    stream = api.service.keys.pseudonym(user_id)
    return [row for rows in everything(api.service).values() for row in rows if str(stream) in row]


@ON_SQLITE
def test_t_03_another_users_session_is_not_even_read(asked: list[str], api: Api):
    alice, bob = api.sign_in(), api.sign_in("bob")
    for path, headers in (("/api/sessions/", alice.bearer), ("/api/users/alice/sessions/", ADMIN)):
        asked.clear()
        assert told(api.delete(f"{path}{bob.id}", headers)) == (404, "session-not-found")
        [by_id] = [s for s in asked if s.startswith("SELECT") and bob.id.replace("-", "") in s.lower()]
        assert api.service.keys.pseudonym("alice").hex in by_id.lower()


# -- T-04: a caller who acts somewhere else

ELSEWHERE = {
    **dict.fromkeys(("X-Tenant", "X-Tenant-Id", "Tenant", "X-Organization", "X-Account"), "other"),
    **dict.fromkeys(("X-User", "X-User-Id", "X-Forwarded-User", "Remote-User", "X-Auth-Request-User", "From"), "bob"),
    **dict.fromkeys(("X-Scope", "X-Scopes", "X-Roles"), ALL),
    **dict.fromkeys(("X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Uri"), "/api/users/bob/disable"),
    **dict.fromkeys(("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"), "DELETE"),
    **dict.fromkeys(("X-Forwarded-Host", "X-Host", "Host", "X-Forwarded-Server"), "other.example"),
}


def test_t_04_no_header_makes_a_caller_act_elsewhere(api: Api):
    alice, bob = api.sign_in(), api.sign_in("bob")
    api.begin({"user_id": "dave"})
    settled(api)
    calls = [
        *((call, alice.bearer) for call in [("GET", "/api/sessions"), ("GET", "/api/auth/session"), *SCOPED]),
        *((("GET", f"/api/users/{user_id}/sessions"), ADMIN) for user_id in ("alice", "bob", "nobody")),
        *((call, bearer(access_token(sub="web"))) for call in GUARDED),
    ]
    before = everything(api.service)
    for call, headers in calls:
        plain = same_but_request_id(send(api, call, headers))
        assert same_but_request_id(send(api, call, {**headers, **ELSEWHERE})) == plain
        for name, value in ELSEWHERE.items():
            assert same_but_request_id(send(api, call, {**headers, name: value})) == plain, (call, name)
    assert everything(api.service) == before
    api.delete("/api/sessions", {**alice.bearer, **ELSEWHERE})
    api.post("/api/sessions/revoke-all", {**alice.bearer, **ELSEWHERE})
    assert [api.is_active(person.bearer) for person in (alice, bob)] == [False, True]


CLAIMS: list[dict[str, Any]] = [
    {"tenant": "other", "tid": "other", "org_id": "other", "user_id": "bob", "username": "bob", "email": "bob"},
    {"roles": ["admin"], "groups": ["users:admin"], "permissions": [ALL], "scp": [ALL], "scopes": ALL, "admin": True},
    {"act": {"sub": "bob"}, "may_act": {"sub": "bob"}, "azp": "bob", "client_id": "bob"},
    {"scope": "openid profile"},
]


@pytest.mark.parametrize("claims", CLAIMS, ids=["names", "roles", "actors", "no scope of ours"])
def test_t_04_an_access_token_acts_for_its_own_user_whatever_else_it_claims(api: Api, claims: dict[str, Any]):
    bob = api.sign_in("bob")
    for call in OF_USERS:
        alice = api.sign_in()
        headers = bearer(alice.access_token(**claims))
        assert api.get("/api/auth/session", headers).json()["user_id"] == "alice"
        assert call_about(api, call, headers, "bob", alice.id).status_code == 200
    alice = api.sign_in()
    for call in SCOPED:
        answer = call_about(api, call, bearer(alice.access_token(**claims)), "bob", bob.id)
        assert told(answer) == (403, "insufficient-scope"), call
    assert api.is_active(bob.bearer)


def test_t_04_an_issuer_other_than_ours_is_nobody(api: Api):
    alice = api.sign_in()
    for issuer in ("https://evil.example", "https://id.example/", "https://id.example/tenant", "HTTPS://ID.EXAMPLE"):
        headers = bearer(alice.access_token(iss=issuer, scope=ALL))
        assert {told(send(api, call, headers, alice.id)) for call in GUARDED} == {(401, "invalid-credential")}


# -- T-07: another site's page


def test_t_07_another_site_can_sign_no_browser_in(api: Api):
    """A page may send forms and plain text; for anything else its browser asks first, and gets no leave."""
    body = b'{"user_id":"mallory"}'
    for media_type in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"):
        answer = api.post("/api/sessions", {**ADMIN, "Content-Type": media_type}, content=body)
        assert told(answer) == (415, "unsupported-media-type")
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for path in {path for _, path in api.operations()}:
        answer = api.request("OPTIONS", path, {**asked, "Access-Control-Request-Headers": "authorization"})
        assert (path, answer.status_code) == (path, 405)
        assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert api.log() == []


# -- T-09: who is said to have sent it


def test_t_09_what_is_said_to_have_been_forwarded_decides_nothing(api: Api):
    evil = {"Origin": "https://evil.example"}
    forwarded = [
        {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"},
        {"Forwarded": "for=127.0.0.1;host=evil.example;proto=https"},
        {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "X-Original-Host": "evil.example"},
    ]
    for headers in forwarded:
        alice = api.sign_in()
        answer = api.delete("/api/sessions", {**alice.by_cookie, **evil, **headers})
        assert told(answer) == (403, "cross-site-request")
        assert told(api.get("/api/sessions", headers)) == (401, "unauthenticated")
        assert api.sessions(alice.bearer)[-1]["ip_address"] is None


# -- T-12: what the time tells


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What SQLite is asked from now on, with the values, on whatever connection is opened.

    Each is traced from its start. Later it would wait, with the interpreter's lock, for a statement of another thread,
    which waits for that lock to tell of itself.
    """
    asked: list[str] = []
    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(asked.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    return asked


def look_ups(asked: list[str], api: Api, headers: Headers, path: str = "/api/auth/session") -> list[str]:
    """The statements that look for a credential."""
    asked.clear()
    api.get(path, headers)
    return [statement for statement in asked if re.match("SELECT.*(token_hash|api_keys)", statement, re.DOTALL)]


def without_values(asked: list[str]) -> list[str]:
    return [re.sub(r"[xX]'[0-9a-fA-F]*'", "?", statement) for statement in asked]


@ON_SQLITE
def test_t_12_a_token_is_looked_up_by_its_digest_with_the_same_work_whatever_it_is(asked: list[str], api: Api):
    alice = api.sign_in()
    near = alice.token[:-2] + ("AA" if alice.token[-2:] != "AA" else "BA")
    known = look_ups(asked, api, alice.bearer)
    for token in (near, "A" * 43, ended(api).token, expired(api).token, barred(api).token, alice.token):
        for headers in (bearer(token), by_cookie(token)):
            found = look_ups(asked, api, headers)
            assert len(found) == 1
            assert digest(token).hex() in found[0].lower()
            assert token not in found[0]
            assert without_values(found) == without_values(known)


@ON_SQLITE
def test_t_12_a_key_is_looked_up_by_its_digest_with_the_same_work_whatever_it_is(asked: list[str], api: Api):
    path = "/api/users/alice/sessions"
    (_, good), (revoked, bad) = api.key(Scope.USERS_ADMIN), api.key(Scope.USERS_ADMIN)
    api.revoke_key(revoked)
    known = look_ups(asked, api, bearer(good), path)
    for secret in (good, bad, good[:-1] + "_", PREFIX, PREFIX + "A" * 43):
        found = look_ups(asked, api, bearer(secret), path)
        assert len(found) == 1
        assert digest(secret).hex() in found[0].lower()
        assert secret == PREFIX or secret not in found[0]
        assert without_values(found) == without_values(known)


@ON_SQLITE
def test_t_12_the_first_key_is_compared_by_digest_in_constant_time(api: Api, monkeypatch: pytest.MonkeyPatch):
    compared: list[set[Any]] = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append({bytes(a), bytes(b)}) or compare(a, b))
    for secret in (BOOTSTRAP_KEY, BOOTSTRAP_KEY[:-1], BOOTSTRAP_KEY[:-1] + "x", "x", "A" * 43, "slk_x", "a.b.c"):
        compared.clear()
        answer = api.get("/api/users/alice/sessions", bearer(secret))
        assert answer.is_success == (secret == BOOTSTRAP_KEY)
        assert compared == [{digest(secret), digest(BOOTSTRAP_KEY)}]


# -- T-13: more than anybody can keep

CHUNKED = "Host: ledger\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("request_line", "status"),
    [("POST /api/sessions HTTP/1.1", 413), ("GET /api/auth/session HTTP/1.1", 413), ("GET /healthz HTTP/1.1", 200)],
)
def test_t_13_a_gibibyte_in_chunks_is_refused_and_never_held(start: Callable[..., Server], request_line: str, status):
    server = start()
    assert server.is_active(server.sign_in())
    process = psutil.Process(server.process.pid)
    resident = before = process.memory_info().rss
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(f"{request_line}\r\nAuthorization: Bearer {KEY}\r\n{CHUNKED}".encode() + chunk)
        answer = connection.recv(4096)
        for sent in range(1024 * MIB // 0x10000):
            try:
                connection.sendall(chunk)
            except OSError:
                break  # it hung up, as it may
            if sent % 256 == 0:
                resident = max(resident, process.memory_info().rss)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert resident - before < 5 * MIB
    assert server.http.get("/healthz").status_code == 200


# -- T-19: secrets where they do not belong


def test_t_19_no_secret_is_in_any_sink_of_a_process_that_runs(start: Callable[..., Server], tmp_path: Path):
    server = start()
    key = made_key(tmp_path)
    tokens = [server.sign_in(user_id=f"user-{number}", idp_name="x") for number in range(5)]
    body = {"user_id": "user-0", "replaces": tokens[0]}
    again = server.http.post("/api/sessions", headers={**ADMIN, "Idempotency-Key": "canary-of-a-key"}, json=body)
    secrets = [*tokens, again.json()["token"], key, KEY, "canary-of-a-key", access_token(sub="x")]
    answers = [answer.content for secret in secrets for answer in misplaced(server.http, secret)]
    answers.append(server.http.get("/openapi.json").content)
    for token in (*tokens, key):
        server.http.post("/api/auth/signout", headers=bearer(token))
    master_key = (tmp_path / "var" / "master.key").read_bytes()
    assert len(master_key) >= 32
    sinks = {"answers": b"\0".join(answers), **files(tmp_path)}
    assert {"server.log", "out.txt", "ledger.db", "ledger.db-wal", "keys.db", "keys.db-wal"} <= sinks.keys()
    assert found_in(sinks, [*secrets, master_key]) == []
    assert server.end() == 0
    assert found_in(files(tmp_path), [*secrets, master_key]) == []


def made_key(directory: Path) -> str:
    """By the operator, beside the process that serves."""
    var = directory / "var"
    files = {"DATABASE_URL": f"sqlite:///{var}/ledger.db", "KEYS_DATABASE_URL": f"sqlite:///{var}/keys.db"}
    environment = {f"LEDGER_{name}": value for name, value in {**files, "MASTER_KEY_FILE": f"{var}/master.key"}.items()}
    scopes = [word for scope in Scope for word in ("--scope", scope)]
    command = [ROOT / "scripts" / "ledger", "keys", "create", "canary", *scopes]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def misplaced(http: httpx.Client, secret: str) -> Iterator[httpx.Response]:
    """A secret in each place that it can be sent in."""
    for method, template in GUARDED:
        if template == "/api/audit/stream":
            continue  # for a key that may listen it does not end
        path = template.format(user_id="nobody", session_id=secret, event_id=secret)
        for headers in ({}, bearer(secret), by_cookie(secret), {**ADMIN, **by_cookie(secret)}, {"X": secret}):
            has_an_end = template != "/api/audit/stream" or "Authorization" not in headers
            if (method != "POST" or headers == {}) and has_an_end:
                yield http.request(method, path, headers=headers)
        yield http.request(method, f"{path}?token={secret}&cursor={secret}&status={secret}", headers=ADMIN)
    for field in ("user_agent", "ip_address", "replaces", "auth_time"):
        yield http.post("/api/sessions", headers=ADMIN, json={"user_id": "", field: secret})
    yield http.post("/api/sessions", headers=ADMIN, content=f'{{"user_id":"{secret}'.encode())
    http.post("/api/sessions", headers=ADMIN, json={secret: 1})  # whose answer names the member to who sent it
    yield http.request(secret[:20], f"/{secret}", headers={"Referer": secret, "User-Agent": secret, "Origin": secret})


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.suffix != ".key"}


def found_in(sinks: dict[str, bytes], secrets: list[Any]) -> list[tuple[str, Any]]:
    raw = [secret if isinstance(secret, bytes) else secret.encode() for secret in secrets]
    return [(name, secret) for name, sink in sinks.items() for secret in raw if secret in sink]


# -- T-20: a key that the token chooses


@pytest.fixture
def evil() -> Iterator[HTTPServer]:
    """A key server that nobody should ask; it counts who does."""

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.server.asked.append(self.path)  # type: ignore[attr-defined]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"keys": [STRANGER.as_dict(private=False)]}).encode())

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Keys)
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@ON_SQLITE
def test_t_20_no_key_is_fetched_from_where_a_token_says(api: Api, evil: HTTPServer, tmp_path: Path):
    alice = api.sign_in()
    (tmp_path / "evil.json").write_text(json.dumps({"keys": [STRANGER.as_dict(private=False)]}))
    places = [f"http://127.0.0.1:{evil.server_port}/jwks.json", f"file://{tmp_path}/evil.json", f"{tmp_path}/evil.json"]
    for place in places:
        for header in ({"jku": place}, {"x5u": place}, {"kid": place}, {"jku": place, "kid": "new"}):
            token = forged(alice, header, by=STRANGER)
            assert told(api.get("/api/auth/session", bearer(token))) == (401, "invalid-credential"), header
    assert evil.asked == []  # type: ignore[attr-defined]


# -- T-21: a secret that was planted


def test_t_21_a_secret_that_was_known_before_signing_in_again_is_dead_after(api: Api):
    planted = api.sign_in()
    again: SignedIn = api.sign_in(replaces=planted.token)
    assert again.token != planted.token
    assert [api.is_active(headers) for headers in planted.ways_in.values()] == [False, False, False]
    assert api.is_active(again.bearer)
