"""`./scripts/ledger checkpoint`: the newest checkpoint of the log, to be kept elsewhere, and the key to check it."""

from typing import Annotated

import typer

from scripts.cli.opening import log_only
from scripts.cli.output import AsJson, print_json
from scripts.cli.refusing import Refused
from store.checkpoints import latest
from store.signing import bound_key


def command(
    key: Annotated[bool, typer.Option("--key", help="Print the public key instead.")] = False, as_json: AsJson = False
) -> None:
    """Print the newest signed note, as it is, or the public key (vkey) that it is checked with."""
    with log_only() as database:
        if key:
            found, name = bound_key(database), "key"
        else:
            with database.reading() as connection:
                published = latest(connection)
            found, name = published.note if published else None, "checkpoint"
    if found is None:
        raise Refused("Nothing is signed yet.")
    if as_json:
        print_json({name: found})
    else:
        typer.echo(found.rstrip("\n"))
