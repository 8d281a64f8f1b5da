"""A long log: rebuilt, in turn with a script for that alone and beside live traffic; verified, exported, searched."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from sqlalchemy import func, select

from projections.audit import newest
from projections.audit_filter import AuditFilter
from projections.rebuild import PROJECTIONS
from scripts.benchmarks import by_hand, load, past, rebuilding, seeding, servers
from scripts.benchmarks.databases import Kind, Place
from scripts.benchmarks.load import Run
from scripts.benchmarks.rebuilding import Rebuilt
from scripts.benchmarks.requests import NO_TOUCH, checks
from store.database import Database
from store.schema import events as log
from store.schema import head, tracking

EVENTS = 1_000_000
PEOPLE, QUERIES = 500, 200
DAY_US = 86_400_000_000
CATCH_UP_S, COMMAND_S = 300.0, 1_800.0


@dataclass
class History:
    """Rates are events/s; `usual` and `during` are checks without and beside a rebuild."""

    kind: Kind
    version: str
    events: int
    rebuilds: list[Rebuilt] = field(default_factory=list)
    by_hand: list[float] = field(default_factory=list)
    usual: list[Run] = field(default_factory=list)
    during: list[Run] = field(default_factory=list)
    verify_rate: float = 0.0
    export_rate: float = 0.0
    by_user_ms: float = 0.0
    by_day_ms: float = 0.0

    @property
    def rate(self) -> float:
        return median(rebuilt.rate for rebuilt in self.rebuilds)

    @property
    def share(self) -> float | None:
        """Of what the script does right before."""
        return (
            median(r.rate / hand for r, hand in zip(self.rebuilds, self.by_hand, strict=True)) if self.by_hand else None
        )

    @property
    def memory_mb(self) -> float:
        return max(rebuilt.memory_mb for rebuilt in self.rebuilds)

    @property
    def p99_times(self) -> float:
        """The p99 of a check beside a rebuild, as a multiple of its usual one."""
        return median(run.p99_ms for run in self.during) / median(run.p99_ms for run in self.usual)

    @property
    def failed(self) -> int:
        return sum(run.failed for run in self.during)


def measure(place: Place, kind: Kind, directory: Path, *, events: int, rounds: int, seconds: int) -> History:
    found = History(kind, place.version, events)
    with seeding.opened(place):
        pass  # makes the tables
    with _database(place) as database:
        past.live_through(database, events)
    for name in PROJECTIONS:
        rebuilding.finish(rebuilding.start(place, name))
    for _ in range(rounds):
        if kind is Kind.SQLITE:
            found.by_hand.append(by_hand.events_a_second(directory / "ledger.db"))
        found.rebuilds.append(rebuilding.finish(rebuilding.start(place)))
    if not all(rebuilt.identical for rebuilt in found.rebuilds):
        raise RuntimeError("A rebuild was not identical.")
    _beside_traffic(found, place, directory, seconds)
    found.verify_rate = _command_rate(found, place, "verify")
    found.export_rate = _command_rate(found, place, "export", "--format", "ndjson")
    with _database(place) as database:
        found.by_user_ms, found.by_day_ms = _audit_ms(database)
    return found


def _beside_traffic(found: History, place: Place, directory: Path, seconds: int) -> None:
    """Checks on a server that has caught up: for some time, and then for as long as a rebuild takes."""
    with servers.ledger({**place.settings, **NO_TOUCH}, directory / "ledger.log") as server:
        _await_followers(place)
        with seeding.opened(place, **NO_TOUCH) as service:
            people = seeding.seed(service, PEOPLE, 1)
        load.write_requests(directory / "requests", checks(people, ""))
        load.run(server, directory / "requests", seconds=1)
        found.usual.extend(load.run(server, directory / "requests", seconds=seconds) for _ in range(3))
        running = rebuilding.start(place)
        while running.poll() is None:
            found.during.append(load.run(server, directory / "requests", seconds=seconds))
        rebuilding.finish(running)


@contextmanager
def _database(place: Place) -> Iterator[Database]:
    database = Database(place.url.replace("postgresql://", "postgresql+psycopg://"))
    try:
        yield database
    finally:
        database.close()


def _await_followers(place: Place) -> None:
    """Until whoever follows the log has seen all of it."""
    give_up = time.monotonic() + CATCH_UP_S
    with _database(place) as database:
        while time.monotonic() < give_up:
            with database.reading() as connection:
                least = connection.execute(select(func.min(tracking.c.position))).scalar_one()
                if least >= connection.execute(select(head.c.position)).scalar_one():
                    return
            time.sleep(0.2)
    raise RuntimeError("The followers have not caught up.")


def _command_rate(found: History, place: Place, *command: str) -> float:
    """Events/s of a command of `./scripts/ledger`, its start included."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "scripts.cli", *command],
        env={**os.environ, **place.settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
        timeout=COMMAND_S,
    )
    return found.events / (time.perf_counter() - started)


def _audit_ms(database: Database) -> tuple[float, float]:
    """The p95 of a page of 50 events of one user, and of one day."""
    dice = random.Random(1)
    with database.reading() as connection:
        last = connection.execute(select(func.max(log.c.position))).scalar_one()
        places = [dice.randint(1, last) for _ in range(QUERIES)]
        at = select(log.c.stream, log.c.recorded_at).where(log.c.position.in_(places))
        rows = connection.execute(at).all()
        users = [{"stream": row.stream} for row in rows]
        days = [{"start": row.recorded_at, "end": row.recorded_at + DAY_US} for row in rows]
        return _p95_ms(connection, users), _p95_ms(connection, days)


def _p95_ms(connection: Any, asked: Sequence[Mapping[str, Any]]) -> float:
    taken = []
    for question in asked:
        started = time.perf_counter()
        newest(connection, AuditFilter(**question), 50)
        taken.append((time.perf_counter() - started) * 1_000)
    return quantiles(taken, n=20)[-1]
