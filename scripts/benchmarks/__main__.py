"""`./scripts/bench`: measure, print, and write the tables and charts of docs/performance.md."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from scripts.benchmarks import commands, databases, history, history_report, load, report, requests, seeding, storage
from scripts.benchmarks.databases import Kind, Place
from scripts.benchmarks.history import History
from scripts.benchmarks.report import Measured
from scripts.server import collect_garbage_rarely

SCENARIOS = [scenario.name for scenario in requests.SCENARIOS]
NAMES = [*SCENARIOS, "commands", "storage", "history"]
COMMANDS = 10_000


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"Only these: {', '.join(NAMES)}.")] = None,
    database: Annotated[list[Kind] | None, typer.Option(help="Only on this database.")] = None,
    users: Annotated[int, typer.Option(min=1, help="People, of five sessions each.")] = requests.USERS,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each scenario; the median counts.")] = 3,
    seconds: Annotated[int, typer.Option(min=1, help="Seconds a run.")] = 4,
    events: Annotated[list[int] | None, typer.Option(min=1_000, help="Lengths of the log for `history`.")] = None,
    write: Annotated[bool, typer.Option(help="Write docs/performance.md when everything was measured.")] = True,
) -> None:
    """Measure the service in turn with a bare FastAPI handler. A full run takes half an hour.

    Compare shares within one run, not rates between runs: a machine's speed changes within minutes.
    """
    chosen = only or NAMES
    if unknown := set(chosen) - {*NAMES}:
        raise typer.BadParameter(f"Not known: {', '.join(sorted(unknown))}.")
    try:
        wrk = load.require_wrk()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from error
    collect_garbage_rarely()
    measured = [_measure(kind, chosen, users, rounds, seconds) for kind in database or list(Kind)]
    if write and not only and not database:
        print(f"Written: {report.write(measured, wrk, rounds, seconds)}")
    if "history" in chosen:
        long_logs = [*_long_logs(database or list(Kind), events or [history.EVENTS], rounds, seconds)]
        if write and not database:
            history_report.write(long_logs, wrk, rounds, seconds)


def _long_logs(kinds: list[Kind], lengths: list[int], rounds: int, seconds: int) -> Iterator[History]:
    for kind in kinds:
        print(f"\n{kind.label}", history_report.HEAD, sep="\n", flush=True)
        for events in lengths:
            with _place(kind) as (place, directory):
                found = history.measure(place, kind, directory, events=events, rounds=rounds, seconds=seconds)
            print(history_report.row(found), flush=True)
            yield found


def _measure(kind: Kind, chosen: list[str], users: int, rounds: int, seconds: int) -> Measured:
    found = Measured(kind)
    if scenarios := [scenario for scenario in requests.SCENARIOS if scenario.name in chosen]:
        with _place(kind) as (place, directory):
            found.version = place.version
            print(report.requests_head(f"{kind.label} {place.version}"), flush=True)
            for figures in requests.measure(place, directory, scenarios, users=users, rounds=rounds, seconds=seconds):
                found.requests.append(figures)
                print(report.request_row(kind, figures), flush=True)
    if "commands" in chosen:
        with _place(kind) as (place, _), seeding.opened(place, **commands.SETTINGS) as service:
            found.commands.extend(commands.measure(service, COMMANDS))
        print(report.COMMANDS_HEAD, *map(report.command_row, found.commands), sep="\n", flush=True)
    if "storage" in chosen:
        with _place(kind) as (place, directory):
            found.storage = storage.measure(place, directory)
        print(report.STORAGE_HEAD, report.storage_row(found.storage), sep="\n", flush=True)
    return found


@contextmanager
def _place(kind: Kind) -> Iterator[tuple[Place, Path]]:
    """A place to measure in, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ledger-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # PostgreSQL refuses to run as root, and runs as a user of its own
        with databases.opened(kind, directory) as place:
            yield place, directory


if __name__ == "__main__":
    typer.run(main)
