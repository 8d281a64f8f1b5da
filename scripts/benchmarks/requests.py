"""Sessions checked, listed, created, revoked and touched over HTTP, each in turn with a bare FastAPI handler."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from sqlalchemy import select

from scripts.benchmarks import load, seeding, servers
from scripts.benchmarks.databases import Kind, Place
from scripts.benchmarks.load import Run
from scripts.benchmarks.seeding import SignedIn
from scripts.demo import MAC
from store.database import Database
from store.schema import head

USERS, SESSIONS_EACH, USED_UP_EACH = 5_000, 5, 10
NO_TOUCH = {"LEDGER_TOUCH_INTERVAL": "3600", "LEDGER_IDLE_TIMEOUT": "14400"}
EACH_TOUCH = {"LEDGER_TOUCH_INTERVAL": "0"}

Requests = Callable[[Sequence[SignedIn], str], list[bytes]]


@dataclass(frozen=True)
class Scenario:
    """One kind of request. `targets`: the share of the bare handler's rate, by kind of database."""

    name: str
    requests: Requests
    targets: dict[Kind, float]
    settings: dict[str, str] = field(default_factory=lambda: NO_TOUCH)
    uses_up: bool = False  # each session serves once


@dataclass(frozen=True)
class Figures:
    """A scenario's runs, those of the bare handler in turn with them, and the events that each request recorded."""

    scenario: Scenario
    runs: list[Run]
    bare: list[Run]
    events: float

    @property
    def share(self) -> float:
        """The median of what each run did, as a share of the bare runs right before and after it."""
        around = zip(self.runs, self.bare, self.bare[1:], strict=False)
        return median([run.rate * 2 / (before.rate + after.rate) for run, before, after in around])

    @property
    def cpu_share(self) -> float:
        """The same of the processor's time a request: what is left of it when the machine is busy elsewhere."""
        return self.bare_median("cpu_ms") / self.median("cpu_ms")

    @property
    def failed(self) -> int:
        return sum(run.failed for run in self.runs)

    def median(self, figure: str) -> float:
        return float(median([getattr(run, figure) for run in self.runs]))

    def bare_median(self, figure: str) -> float:
        return float(median([getattr(run, figure) for run in self.bare]))


def checks(sessions: Sequence[SignedIn], _: str) -> list[bytes]:
    return [load.get("/api/auth/session", s.token) for s in sessions]


def lists(sessions: Sequence[SignedIn], _: str) -> list[bytes]:
    return [load.get("/api/sessions", s.token) for s in sessions]


def creates(sessions: Sequence[SignedIn], key: str) -> list[bytes]:
    client = {"ip_address": "203.0.113.7", "user_agent": MAC, "remember_me": True}
    return [load.post("/api/sessions", key, {"user_id": s.user_id, **client}) for s in sessions]


def revokes(sessions: Sequence[SignedIn], _: str) -> list[bytes]:
    return [load.delete(f"/api/sessions/{s.session_id}", s.token) for s in sessions]


SCENARIOS = (
    Scenario("check", checks, {Kind.SQLITE: 0.65, Kind.POSTGRESQL: 0.40}),
    Scenario("list five", lists, {Kind.SQLITE: 0.40, Kind.POSTGRESQL: 0.25}),
    Scenario("recorded touch", checks, {Kind.SQLITE: 0.25, Kind.POSTGRESQL: 0.18}, EACH_TOUCH),
    Scenario("create", creates, {Kind.SQLITE: 0.25, Kind.POSTGRESQL: 0.18}),
    Scenario("revoke", revokes, {Kind.SQLITE: 0.25, Kind.POSTGRESQL: 0.18}, uses_up=True),
)


def measure(
    place: Place, directory: Path, scenarios: Sequence[Scenario], *, users: int, rounds: int, seconds: int
) -> Iterator[Figures]:
    """Each scenario on a server of its own, with the same sessions, but where they are used up."""
    with seeding.opened(place, **NO_TOUCH) as service:
        sessions, key = seeding.seed(service, users, SESSIONS_EACH), seeding.api_key(service)
    load.write_requests(directory / "bare.requests", [load.get("/", "")])
    with servers.bare(directory / "bare.log") as bare:
        for scenario in scenarios:
            if scenario.uses_up:
                with seeding.opened(place, **NO_TOUCH) as service:
                    sessions = seeding.seed(service, users, USED_UP_EACH)
            load.write_requests(directory / "requests", scenario.requests(sessions, key))
            yield _measure(scenario, place, directory, bare, users, rounds, seconds)


def _measure(
    scenario: Scenario, place: Place, directory: Path, bare: servers.Server, users: int, rounds: int, seconds: int
) -> Figures:
    runs: list[Run] = []
    baseline: list[Run] = []
    sent, before = 0, last_position(place)
    with servers.ledger({**place.settings, **scenario.settings}, directory / "ledger.log") as server:

        def run(seconds: int) -> Run:
            nonlocal sent
            ran = load.run(server, directory / "requests", seconds=seconds, start=sent)
            sent += ran.requests + load.CONNECTIONS  # so many were on their way when it ended
            return ran

        while sent < users:
            run(1)
        for _ in range(rounds):
            baseline.append(load.run(bare, directory / "bare.requests", seconds=seconds))
            runs.append(run(seconds))
        baseline.append(load.run(bare, directory / "bare.requests", seconds=seconds))
    return Figures(scenario, runs, baseline, (last_position(place) - before) / sent)


def last_position(place: Place) -> int:
    """The number of events in the log."""
    database = Database(place.url.replace("postgresql://", "postgresql+psycopg://"))
    try:
        with database.reading() as connection:
            return int(connection.execute(select(head.c.position)).scalar_one())
    finally:
        database.close()
