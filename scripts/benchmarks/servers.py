"""The servers under load: the ledger as `./scripts/serve` starts it, and the bare handler."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import psutil

START_S = 30.0


class Server:
    """One server process; what it has used of the machine."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._process = psutil.Process(process.pid)

    def cpu_s(self) -> float:
        """Seconds of processor time so far, of all its threads."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def memory_bytes(self) -> int:
        """What it holds in memory now (resident set)."""
        return int(self._process.memory_info().rss)


@contextmanager
def ledger(settings: Mapping[str, str], log: Path) -> Iterator[Server]:
    port = _free_port()
    with _running(["scripts.server"], {**settings, "LEDGER_PORT": str(port)}, log, port, "/healthz") as server:
        yield server


@contextmanager
def bare(log: Path) -> Iterator[Server]:
    port = _free_port()
    with _running(["scripts.benchmarks.bare", str(port)], {}, log, port, "/") as server:
        yield server


@contextmanager
def _running(command: list[str], settings: Mapping[str, str], log: Path, port: int, health: str) -> Iterator[Server]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LEDGER_")}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], env={**environment, **settings}, stdout=output, stderr=output
        )
    try:
        _await(process, f"http://127.0.0.1:{port}{health}", log)
        yield Server(process, port)
    finally:
        process.terminate()
        process.wait(START_S)


def _await(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    give_up = time.monotonic() + START_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except (URLError, OSError):
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{url} does not answer; see {log}") from None
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
