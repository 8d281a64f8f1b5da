"""`./scripts/ledger`: the operator's commands. They go straight to the store; no server need run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from api.app import open_service
from api.service import Service
from api.settings import SettingsError, load_settings
from domain.errors import StoreUnavailable
from store.api_keys import Scope, create_key, list_keys, revoke_key
from store.clock import ClockBehindLog, from_micros
from store.keys import MasterKeyError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Operate the session ledger.")
keys = typer.Typer(no_args_is_help=True, help="API keys of services and administrators.")
app.add_typer(keys, name="keys")


@keys.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What the key is for, for people.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; may be given several times.")],
) -> None:
    """Make a key and print it, this once."""
    with _service() as service:
        key, secret = create_key(service.database, name, scope, service.clock.micros())
    typer.echo(f"Key {key.key_id} ({name}): {', '.join(sorted(key.scopes))}", err=True)
    typer.echo(secret)


@keys.command("list")
def show() -> None:
    """Every key ever made, without its secret."""
    with _service() as service:
        found = list_keys(service.database)
    table = Table("id", "name", "scopes", "created", "revoked", box=None)
    for key in found:
        revoked = from_micros(key.revoked_at).isoformat(timespec="seconds") if key.revoked_at else ""
        created = from_micros(key.created_at).isoformat(timespec="seconds")
        table.add_row(key.key_id, key.name, " ".join(sorted(key.scopes)), created, revoked)
    Console().print(table)


@keys.command("revoke")
def revoke(key_id: Annotated[str, typer.Argument(help="The id, as `list` shows it.")]) -> None:
    """Refuse a key from now on."""
    with _service() as service:
        revoked = revoke_key(service.database, key_id, service.clock.micros())
    if not revoked:
        typer.echo(f"No key {key_id} is in force.", err=True)
        raise typer.Exit(1)
    typer.echo(f"Key {key_id} is revoked.", err=True)


@contextmanager
def _service() -> Iterator[Service]:
    os.umask(0o077)
    try:
        service = open_service(load_settings(os.environ))
    except (SettingsError, StoreUnavailable, MasterKeyError, ClockBehindLog, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    try:
        yield service
    finally:
        service.close()


if __name__ == "__main__":
    app(prog_name="./scripts/ledger")
