"""One rebuild in a process of its own: `python -m scripts.benchmarks.rebuilding <url> <name>`.

Prints events, seconds, whether it was identical, and the most memory (MB) that the process has held.
"""

import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

import api.service  # noqa: F401  (knows every topic)
from projections.rebuild import PROJECTIONS, rebuild
from scripts.benchmarks.databases import Place
from store.database import Database


@dataclass(frozen=True)
class Rebuilt:
    events: int
    seconds: float
    identical: bool
    memory_mb: float

    @property
    def rate(self) -> float:
        return self.events / self.seconds


def start(place: Place, name: str = "sessions") -> "subprocess.Popen[str]":
    url = place.url.replace("postgresql://", "postgresql+psycopg://")
    command = [sys.executable, "-m", "scripts.benchmarks.rebuilding", url, name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> Rebuilt:
    """Its figures. Raises RuntimeError when it has failed."""
    told, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"A rebuild ended with {process.returncode}.")
    return Rebuilt(**json.loads(told))


def _measure(url: str, name: str) -> Rebuilt:
    started = time.perf_counter()
    comparison = rebuild(Database(url), PROJECTIONS[name])
    seconds = time.perf_counter() - started
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Rebuilt(
        comparison.events, seconds, comparison.identical, most / (2**20 if sys.platform == "darwin" else 2**10)
    )


if __name__ == "__main__":
    print(json.dumps(asdict(_measure(*sys.argv[1:]))))
