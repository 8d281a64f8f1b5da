"""`./scripts/ledger rebuild`: fold the log anew beside a live read model, compare, and switch."""

from typing import Annotated, Any

import typer
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from projections.rebuild import PROJECTIONS, Comparison, RebuildRunning, rebuild
from projections.shadow import RebuildStopped, Superseded
from scripts.cli.opening import CANNOT_READ_OR_WRITE, log_only
from scripts.cli.output import AsJson, print_json
from scripts.cli.refusing import NO, Refused
from store.database import Database


def command(
    names: Annotated[list[str] | None, typer.Argument(help=f"Which: {', '.join(PROJECTIONS)}. All by default.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Only compare; exit code 1 when something differs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fold the log anew beside the live read model, compare the two, and switch. The service may run meanwhile.

    Killed at any point, it goes on where it was when it is run again.
    """
    chosen = list(dict.fromkeys(names or PROJECTIONS))
    if unknown := [name for name in chosen if name not in PROJECTIONS]:
        raise typer.BadParameter(f"There is no read model {', '.join(unknown)}; there is {', '.join(PROJECTIONS)}.")
    with log_only() as database:
        found = {name: _rebuilt(database, name, dry_run) for name in chosen}
    if as_json:
        print_json({"rebuilt": [_as_json(name, comparison, dry_run) for name, comparison in found.items()]})
    else:
        for name, comparison in found.items():
            _tell(name, comparison, dry_run)
    if dry_run and not all(comparison.identical for comparison in found.values()):
        raise typer.Exit(NO)


def _rebuilt(database: Database, name: str, dry_run: bool) -> Comparison:
    try:
        with _progress() as progress:
            task = progress.add_task(name, total=None)
            return rebuild(
                database,
                PROJECTIONS[name],
                dry_run=dry_run,
                report=lambda done, total: progress.update(task, completed=done, total=total),
            )
    except (RebuildRunning, Superseded) as error:
        raise Refused(str(error)) from error
    except RebuildStopped as error:
        typer.echo(f"{name}: {error}\nThe live read model is as it was.", err=True)
        raise typer.Exit(CANNOT_READ_OR_WRITE) from error


class _Rate(ProgressColumn):
    """Events a second, since this run began."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} events/s" if speed else "")


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def _as_json(name: str, comparison: Comparison, dry_run: bool) -> dict[str, Any]:
    rows = [{"table": row.table, "key": row.key, "live": row.live, "rebuilt": row.rebuilt} for row in comparison.rows]
    return {
        "name": name,
        "events": comparison.events,
        "identical": comparison.identical,
        "replaced": not dry_run,
        "shapes": comparison.shapes,
        "differing": comparison.differing,
        "rows": to_jsonable_python(rows, bytes_mode="hex"),
    }


def _tell(name: str, comparison: Comparison, dry_run: bool) -> None:
    if comparison.identical:
        typer.echo(f"{name}: identical after {comparison.events:,} events")
        return
    outcome = "differ" if dry_run else "differed and were replaced"
    typer.echo(f"{name}: {comparison.differing:,} rows {outcome}, after {comparison.events:,} events")
    for line in [*comparison.shapes, *comparison.rows]:
        typer.echo(f"  {line}")
    if comparison.differing > len(comparison.rows):
        typer.echo(f"  … and {comparison.differing - len(comparison.rows):,} more")
