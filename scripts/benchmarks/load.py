"""Load by `wrk` (on Debian: `apt install wrk`): one thread, 32 connections."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmarks.servers import Server

CONNECTIONS = 32
SCRIPT = Path(__file__).with_name("load.lua")
SEPARATOR = b"\x1e"


@dataclass(frozen=True)
class Run:
    """What one run of the load generator saw. `cpu_ms` is the server's processor time a request."""

    rate: float
    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    failed: int


def require_wrk() -> str:
    """Its version. Raises RuntimeError, which says how to get it."""
    if not shutil.which("wrk"):
        raise RuntimeError("wrk is needed to make load: apt install wrk (Debian), brew install wrk (macOS).")
    told = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False).stdout
    return told.split("[")[0].strip()


def get(path: str, token: str) -> bytes:
    return _request("GET", path, token)


def delete(path: str, token: str) -> bytes:
    return _request("DELETE", path, token)


def post(path: str, token: str, body: object) -> bytes:
    return _request("POST", path, token, json.dumps(body).encode())


def _request(method: str, path: str, token: str, body: bytes = b"") -> bytes:
    content = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n{content}\r\n"
    return head.encode() + body


def write_requests(path: Path, requests: Sequence[bytes]) -> None:
    path.write_bytes(SEPARATOR.join(requests))


def run(server: Server, requests: Path, *, seconds: float, start: int = 0) -> Run:
    """Send the file's requests in turn, from number `start` on, for so long."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(SCRIPT)]
    before = server.cpu_s()
    told = subprocess.run(
        [*command, server.url, "--", str(requests), str(start)], capture_output=True, text=True, check=True
    )
    cpu_s = server.cpu_s() - before
    figures = json.loads(told.stdout.strip().splitlines()[-1])
    count = figures["requests"]
    return Run(
        rate=count / figures["seconds"],
        requests=count,
        seconds=figures["seconds"],
        p50_ms=figures["p50_ms"],
        p99_ms=figures["p99_ms"],
        cpu_ms=cpu_s * 1000 / max(count, 1),
        failed=figures["failed"],
    )
