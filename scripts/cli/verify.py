"""`./scripts/ledger verify`: has anybody altered the log?"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from api.opening import signing_key_file
from api.settings import load_settings
from projections.export_check import PartOnly, verify_export
from scripts.cli.opening import CANNOT_READ_OR_WRITE, log_only, told
from scripts.cli.output import AsJson, print_json
from scripts.cli.refusing import NO
from store.database import Database
from store.notes import Checkpoint, NoteError, Verifier
from store.signing import SigningKey, SigningKeyError, memory_of, read_memory
from store.verifying import Report, Signed, verify_log

SHOWN = 20


def _vkey(value: str) -> Verifier:
    try:
        return Verifier.parse(value)
    except NoteError as error:
        raise typer.BadParameter(str(error)) from error


Key = Annotated[Verifier | None, typer.Option("--key", parser=_vkey, help="The public key: checkpoint --key tells it.")]
Notes = Annotated[list[Path] | None, typer.Option("--checkpoint", help="A note that was kept elsewhere; repeatable.")]


Export = Annotated[Path | None, typer.Option(help="An NDJSON export of the whole log, in the place of a database.")]


def command(export: Export = None, key: Key = None, checkpoint: Notes = None, as_json: AsJson = False) -> None:
    """Rehash and read every event, check every checkpoint, and name the first position where something is wrong.

    Exit code 0: intact; 1: altered. The service may run meanwhile. Without --key the signing key's file is asked.
    Offline, --export needs --key and a --checkpoint.
    """
    report = _of_database(key, checkpoint or []) if export is None else _of_export(export, key, checkpoint or [])
    if as_json:
        print_json(_as_json(report))
    else:
        _tell(report)
    if not report.is_intact or report.beside:
        raise typer.Exit(NO)


def _of_export(export: Path, verifier: Verifier | None, notes: list[Path]) -> Report:
    if verifier is None or not notes:
        raise typer.BadParameter("An export is verified with --key and at least one --checkpoint.")
    with told():
        signed = kept(notes, verifier)
        try:
            with export.open("rb") as lines:
                return verify_export(lines, verifier.name, signed)
        except PartOnly as error:
            raise typer.BadParameter(str(error)) from error
        except OSError as error:
            typer.echo(f"{export} cannot be read: {error}", err=True)
            raise typer.Exit(CANNOT_READ_OR_WRITE) from error


def _of_database(key: Verifier | None, notes: list[Path]) -> Report:
    with log_only(as_it_is=True) as database:
        path = signing_key_file(load_settings(os.environ))
        verifier = key or SigningKey(path).verifier
        known = [*remembered(memory_of(path), verifier, key is not None), *kept(notes, verifier)]
        return _verified(database, verifier, known)


def remembered(memory: Path, verifier: Verifier, may_be_elsewhere: bool) -> list[Signed]:
    """What the signer remembers. An auditor has only the public key, so the memory need not be where he is."""
    if may_be_elsewhere and not memory.exists():
        return []
    last = read_memory(memory, verifier)
    return [Signed(last.size, last.root, "the signer's memory")]


def kept(paths: list[Path], verifier: Verifier) -> list[Signed]:
    return [Signed(note.size, note.root, str(path)) for path in paths for note in [_note(path, verifier)]]


def _note(path: Path, verifier: Verifier) -> Checkpoint:
    try:
        return verifier.open(path.read_text())
    except (OSError, UnicodeDecodeError, NoteError) as error:
        raise SigningKeyError(f"{path} is no checkpoint of this key: {error}") from error


def _verified(database: Database, verifier: Verifier, known: list[Signed]) -> Report:
    with _progress() as progress:
        task = progress.add_task("verify", total=None)
        return verify_log(
            database,
            verifier,
            known,
            processes=os.cpu_count() or 1,
            told=lambda done, total: progress.update(task, completed=done, total=total, refresh=True),
        )


@contextmanager
def _progress() -> Iterator[Progress]:
    """Drawn when there is news, and by no thread: the log is read by processes that are forked from this one."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    is_shown = console.is_terminal
    with Progress(*columns, console=console, auto_refresh=False, disable=not is_shown, transient=True) as progress:
        yield progress


def _as_json(report: Report) -> dict[str, Any]:
    return {
        "intact": report.is_intact,
        "events": report.events,
        "sealed": report.sealed,
        "unsealed": max(report.events - report.sealed, 0),
        "checkpoints": report.checkpoints,
        "first_bad_position": report.findings[0].position if report.findings else None,
        "findings": [finding._asdict() for finding in report.findings],
        "findings_left_out": report.left_out,
        "beside": report.beside,
    }


def _tell(report: Report) -> None:
    for position, what in report.findings[:SHOWN]:
        typer.echo(f"position {position}: {what}")
    if left_out := len(report.findings[SHOWN:]) + report.left_out:
        typer.echo(f"… and {left_out:,} more")
    for what in report.beside:
        typer.echo(f"beside the events: {what}")
    typer.echo(f"{report.events:,} events: {'intact' if report.is_intact else 'NOT intact'}")
    newer = max(report.events - report.sealed, 0)
    if report.events and not report.sealed:
        typer.echo("Nothing signed vouches for these events: compare them with a checkpoint that you have kept.")
    typer.echo(f"checkpoints: {report.checkpoints:,}, the last at {report.sealed:,}; events that are newer: {newer:,}")
