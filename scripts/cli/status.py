"""`./scripts/ledger status` and `resume`: how far everybody has come, and how who has stopped goes on."""

from typing import Annotated, Any

import typer

from projections.parking import resume as resume_parked
from projections.progress import Standing, status
from scripts.cli.moments import shown
from scripts.cli.names import name as checked_name
from scripts.cli.opening import log_only
from scripts.cli.output import AsJson, print_json, print_table
from scripts.cli.refusing import NO
from store.clock import Clock, from_micros

COLUMNS = ("name", "position", "lag_events", "lag_seconds", "parked", "resume")


def command(as_json: AsJson = False) -> None:
    """Say where the log ends and how far each projection and policy is. Exit code 1: one of them is parked."""
    with log_only() as database, database.reading() as connection:
        head, recorded_at, followers = status(connection, Clock().micros())
    rows = [_row(standing) for standing in followers]
    last = from_micros(recorded_at) if recorded_at is not None else None
    if as_json:
        print_json({"head": head, "recorded_at": last, "followers": rows})
    else:
        typer.echo(f"The log ends at position {head}" + (f", recorded at {shown(last)}." if last else "."))
        print_table(rows, COLUMNS)
    if any(standing.parked for standing in followers):
        raise typer.Exit(NO)


def resume(
    name: Annotated[
        str, typer.Argument(parser=checked_name, metavar="NAME", help="The projection or policy, as `status` shows it.")
    ],
    as_json: AsJson = False,
) -> None:
    """Let who is parked try again, where it stopped. Nothing is skipped: what made it stop must have been cured."""
    with log_only() as database, database.transaction() as connection:
        resumed = resume_parked(connection, name)
    if as_json:
        print_json({"name": name, "resumed": resumed})
    if not resumed:
        typer.echo(f"{name} is not parked.", err=True)
        raise typer.Exit(NO)
    typer.echo(f"{name} tries again within a second, once a server runs.", err=True)


def _row(standing: Standing) -> dict[str, Any]:
    return {
        **standing._asdict(),
        "lag_seconds": round(standing.lag_seconds, 3),
        "resume": f"./scripts/ledger resume {standing.name}" if standing.parked else None,
    }
