"""What was measured, as lines on the screen and as the tables and charts of docs/performance.md."""

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from scripts.benchmarks.commands import IN_FLIGHT, TARGETS, USERS, CommandRate
from scripts.benchmarks.databases import Kind
from scripts.benchmarks.requests import Figures
from scripts.benchmarks.storage import Storage

DOCUMENT = Path(__file__).parents[2] / "docs" / "performance.md"
BEGIN, END = "<!-- measured by ./scripts/bench: begin -->", "<!-- measured by ./scripts/bench: end -->"
MOST_MB, MOST_BYTES = 200, 350


@dataclass
class Measured:
    """Everything measured on one database."""

    kind: Kind
    version: str = ""
    requests: list[Figures] = field(default_factory=list)
    commands: list[CommandRate] = field(default_factory=list)
    storage: Storage | None = None


COMMANDS_HEAD = "\n| command | durable commands/s | commands | events |\n|---|---|---|---|"
STORAGE_HEAD = (
    "\n| sessions | MB at first | MB then | recorded touches | bytes of database a touch |\n|---|---|---|---|---|"
)


def requests_head(title: str) -> str:
    return (
        f"\n| {title} | share of bare | target | requests/s | bare | CPU ms a request | bare | p50 ms | p99 ms "
        "| events a request |\n|---|---|---|---|---|---|---|---|---|---|"
    )


def request_row(kind: Kind, f: Figures) -> str:
    if f.failed:
        raise RuntimeError(f"{f.failed} requests of {f.scenario.name} failed.")
    target = f.scenario.targets[kind]
    return (
        f"| {f.scenario.name} | {verdict(f.share, f.share >= target)} | {target:.2f} "
        f"| {f.median('rate'):,.0f} | {f.bare_median('rate'):,.0f} | {f.median('cpu_ms'):.3f} "
        f"| {f.bare_median('cpu_ms'):.3f} | {f.median('p50_ms'):.1f} | {f.median('p99_ms'):.1f} | {f.events:.2f} |"
    )


def command_row(measured: CommandRate) -> str:
    return f"| {measured.name} | {measured.rate:,.0f} | {measured.commands:,} | {measured.events:,} |"


def storage_row(s: Storage) -> str:
    return (
        f"| {s.sessions:,} | {s.start_mb:.0f} | {verdict(s.memory_mb, s.memory_mb <= MOST_MB, '.0f')} | {s.touches:,} "
        f"| {verdict(s.bytes_a_touch, s.bytes_a_touch <= MOST_BYTES, '.0f')} |"
    )


def verdict(value: float, is_met: bool, form: str = ".2f") -> str:
    return f"**{value:{form}}**" if is_met else f"{value:{form}} (missed)"


def write(measured: Sequence[Measured], wrk: str, rounds: int, seconds: int) -> Path:
    """Put the figures between the marks of the document; what people wrote around them stays."""
    put(BEGIN, END, _body(measured, wrk, rounds, seconds))
    return DOCUMENT


def put(begin: str, end: str, text: str) -> None:
    before, _, rest = DOCUMENT.read_text().partition(begin)
    _, _, after = rest.partition(end)
    DOCUMENT.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def _body(measured: Sequence[Measured], wrk: str, rounds: int, seconds: int) -> str:
    return "\n".join([machine(wrk, rounds, seconds), *(line for each in measured for line in _database(each))])


def machine(wrk: str, rounds: int, seconds: int) -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("fastapi", "uvicorn", "sqlalchemy", "psycopg"))
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, {memory_gb:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, {packages}, {wrk}. "
        f"Median of {rounds} runs of {seconds} s."
    )


def _database(m: Measured) -> Iterable[str]:
    yield f"\n### {m.kind.label} {m.version}"
    yield requests_head("over HTTP")
    yield from (request_row(m.kind, figures) for figures in m.requests)
    yield _chart(m)
    yield f"\nThe ledger alone, {IN_FLIGHT} commands in flight over {USERS} users; target {TARGETS[m.kind]:,}/s:"
    yield COMMANDS_HEAD
    yield from map(command_row, m.commands)
    yield STORAGE_HEAD
    if m.storage:
        yield storage_row(m.storage)


def _chart(m: Measured) -> str:
    names = ", ".join(f'"{f.scenario.name}"' for f in m.requests)
    shares = ", ".join(f"{f.share:.2f}" for f in m.requests)
    targets = ", ".join(f"{f.scenario.targets[m.kind]:.2f}" for f in m.requests)
    return f"""
```mermaid
xychart-beta
    title "Requests/s on {m.kind.label} as a share of a bare FastAPI handler's (bars), and the targets (line)"
    x-axis [{names}]
    y-axis "share" 0 --> 1.2
    bar [{shares}]
    line [{targets}]
```"""
