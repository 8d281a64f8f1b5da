"""`./scripts/ledger backup` and `check-restore`: a copy of a ledger on SQLite, and whether it can be restored."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from api.app import signing_key_file
from api.settings import Settings, load_settings
from projections.restoring import faults
from scripts.cli.opening import NO, reading, told
from scripts.cli.output import AsJson, print_json, printable
from scripts.cli.verify import Key
from store.backup import BackupRefused, Files, back_up
from store.database import Database
from store.notes import Verifier
from store.signing import SigningKey

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The directory of the backup.")]


def backup(directory: Directory, as_json: AsJson = False) -> None:
    """Copy log, read models and keys while the service runs. DIR is complete afterwards, or not there at all.

    Move DIR/keys, which opens everything, to a place of its own.
    """
    with reading() as opened:
        try:
            back_up(opened.database, opened.keys_database, Path(opened.settings.master_key_file), directory)
        except BackupRefused as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(NO) from error
    if as_json:
        print_json({"log": Files(directory).log, "keys": Files(directory).keys.parent})
    else:
        typer.echo(f"{directory} is complete. Keep {Files(directory).keys.parent} apart from it.", err=True)


def check_restore(directory: Directory, key: Key = None, as_json: AsJson = False) -> None:
    """Say whether a backup can be restored: files, keys, who was erased since, and every event and checkpoint.

    Exit code 1: something is wrong with it. Checkpoints need the signing key of the settings, or --key.
    """
    with told(), _live_keys(settings := load_settings(os.environ)) as live:
        verifier = key or _own_key(settings)
        found = [printable(fault) for fault in faults(Files(directory), live, verifier)]
    if as_json:
        print_json({"faults": found, "checkpoints_checked": verifier is not None})
    for fault in [] if as_json else found:
        typer.echo(fault)
    if verifier is None:
        typer.echo("Events and checkpoints were not checked: there is no signing key here; give --key.", err=True)
    if found:
        raise typer.Exit(NO)
    typer.echo(f"{directory} can be restored.", err=True)


@contextmanager
def _live_keys(settings: Settings) -> Iterator[Database | None]:
    """Those of the ledger as it is now, if it is there: a restore may be what brings it back."""
    database = Database(settings.keys_database_url)
    try:
        yield database if not database.is_sqlite or database.path.is_file() else None
    finally:
        database.close()


def _own_key(settings: Settings) -> Verifier | None:
    path = signing_key_file(settings)
    return SigningKey(path).verifier if path.exists() else None
