"""`./scripts/ledger check-restore`: whether a backup can be restored, or what was restored is whole."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from api.opening import signing_key_file
from api.settings import Settings, load_settings
from projections.rebuild import RebuildRunning
from projections.restoring import Condition, Restored, examine, tried_out
from scripts.cli.opening import must_be_current, told
from scripts.cli.output import AsJson, print_json, printable
from scripts.cli.refusing import NO, Refused
from scripts.cli.verify import SHOWN, Key, Notes, kept, remembered
from store.backup import Files
from store.database import Database
from store.notes import Verifier
from store.signing import SigningKey, SigningKeyError, bound_key, memory_of


def command(
    directory: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="A backup; without it, the ledger of the settings.")
    ] = None,
    key: Key = None,
    checkpoint: Notes = None,
    as_json: AsJson = False,
) -> None:
    """Check log, checkpoints, keys, who was erased, and read models, and say what a restore loses.

    A backup is not changed: its log is copied into the directory for temporary files (TMPDIR), which needs the room.
    Exit code 1: something is wrong with it. That a backup is older than what was signed last is told, and is no fault.
    """
    with told():
        settings = load_settings(os.environ)
        with _restored(directory, settings) as restored:
            must_be_current(restored.log)
            found = _examined(restored, settings, key, checkpoint or [])
    if as_json:
        print_json(_as_json(found))
    else:
        _tell(found)
    if found.faults:
        raise typer.Exit(NO)


@contextmanager
def _restored(directory: Path | None, settings: Settings) -> Iterator[Restored]:
    with closing(Database(settings.keys_database_url)) as keys:
        if directory is not None:
            there = not keys.is_sqlite or keys.path.is_file()  # a restore may be what brings them back
            with tried_out(Files(directory), keys if there else None) as restored:
                yield restored
        else:
            keys.must_exist()
            with closing(Database(settings.database_url)) as log:
                log.must_exist()
                yield Restored(log, keys, Path(settings.master_key_file))


def _examined(restored: Restored, settings: Settings, key: Verifier | None, notes: Sequence[Path]) -> Condition:
    path = signing_key_file(settings)
    verifier = key or _verifier(path, restored.log)
    last_signed = next(iter(remembered(memory_of(path), verifier, may_be_elsewhere=True)), None)
    with _progress() as progress:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            task = tasks[what] if what in tasks else tasks.setdefault(what, progress.add_task(what))
            progress.update(task, completed=done, total=total)

        try:
            return examine(restored, verifier, last_signed, kept([*notes], verifier), os.cpu_count() or 1, report)
        except RebuildRunning as error:
            raise Refused(str(error)) from error


def _verifier(path: Path, log: Database) -> Verifier:
    """That of the signing key here; where there is none, the log's own word for it has to do."""
    if path.exists():
        return SigningKey(path).verifier
    vkey = bound_key(log)
    if vkey is None:
        raise SigningKeyError("There is no signing key here, and the log names none: give --key.")
    typer.echo(f"There is no signing key here. The log's own word for it is taken; --key is safer: {vkey}", err=True)
    return Verifier.parse(vkey)


@contextmanager
def _progress() -> Iterator[Progress]:
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        yield progress


def _as_json(found: Condition) -> dict[str, Any]:
    log = found.log
    return {
        "restorable": not found.faults,
        "faults": found.faults,
        "events": log and log.events,
        "sealed": log and log.sealed,
        "unsealed": log and max(log.events - log.sealed, 0),
        "checkpoints": log and log.checkpoints,
        "lost": found.lost,
        "read_models": {name: comparison.identical for name, comparison in found.read_models.items()},
    }


def _tell(found: Condition) -> None:
    for fault in found.faults[:SHOWN]:
        typer.echo(printable(fault))
    if left_out := len(found.faults[SHOWN:]):
        typer.echo(f"… and {left_out:,} more")
    if log := found.log:
        newer = max(log.events - log.sealed, 0)
        typer.echo(
            f"{log.events:,} events; {log.checkpoints:,} checkpoints, the last at {log.sealed:,}; newer: {newer:,}"
        )
    if found.lost:
        typer.echo(
            f"{found.lost:,} events or more, which were signed since, are not in it, and the signer refuses to go on "
            "behind them: decision 0010 says what to do."
        )
    same = [name for name, comparison in found.read_models.items() if comparison.identical]
    typer.echo(f"Read models that are what the log says: {', '.join(same) or 'none'}")
    typer.echo("It cannot be restored as it is." if found.faults else "It can be restored.")
