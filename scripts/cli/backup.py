"""`./scripts/ledger backup`: a copy of a ledger on SQLite while it is in use."""

from pathlib import Path
from typing import Annotated

import typer

from scripts.cli.opening import reading
from scripts.cli.output import AsJson, print_json
from scripts.cli.refusing import Refused
from store.backup import BackupRefused, Files, back_up


def command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory to make.")], as_json: AsJson = False
) -> None:
    """Copy log, read models and keys while the service runs. DIR is complete afterwards, or not there at all.

    Move DIR/keys, which opens everything, to a place of its own.
    """
    with reading() as opened:
        try:
            back_up(opened.database, opened.keys_database, Path(opened.settings.master_key_file), directory)
        except BackupRefused as error:
            raise Refused(str(error)) from error
    if as_json:
        print_json({"log": Files(directory).log, "keys": Files(directory).keys.parent})
    else:
        typer.echo(f"{directory} is complete. Keep {Files(directory).keys.parent} apart from it.", err=True)
