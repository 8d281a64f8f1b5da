"""`./scripts/ledger keys rotate-master`: wrap every key with a new master key, while the service runs."""

import typer
from rich.console import Console
from rich.progress import Progress

from projections.leadership import leadership
from scripts.cli.opening import keys_only
from scripts.cli.output import AsJson, print_json
from scripts.cli.refusing import Refused
from store.keys import KeyStore
from store.rotation import Rotated, rotate_master


def command(as_json: AsJson = False) -> None:
    """Make a new master key, wrap every key with it, and take the old one out of the file.

    The service goes on meanwhile. Killed at any point, it goes on where it was when it is run again. A backup of the
    keys from before opens only with the master key of then: keep that with it, or make a new backup.
    """
    with keys_only() as keys:
        rotated = _alone(keys)
    if as_json:
        print_json({"rewrapped": rotated.keys, "resumed": rotated.resumed})
    else:
        begun = ", going on with what had been begun" if rotated.resumed else ""
        typer.echo(f"{rotated.keys:,} keys were wrapped anew{begun}; the old master key opens nothing any more.")


def _alone(keys: KeyStore) -> Rotated:
    lead = leadership(keys.database, "rotation")
    if not lead.is_held():
        raise Refused("The master key is being rotated already.")
    try:
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("keys", total=None)
            return rotate_master(keys, lambda done, total: progress.update(task, completed=done, total=total))
    finally:
        lead.release()
