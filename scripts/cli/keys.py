"""`./scripts/ledger keys`: the API keys of services and administrators, and the master key."""

from typing import Annotated, Any

import typer

from api.ids import new_uuid7
from domain.ledger import Request
from projections.api_keys import OPERATOR, list_keys
from scripts.cli import rotate_master
from scripts.cli.moments import shown
from scripts.cli.names import name as checked_name
from scripts.cli.opening import reading, service
from scripts.cli.output import AsJson, print_json, print_table
from scripts.cli.refusing import NO, Command
from store.api_keys import ApiKey, Scope, create_key, revoke_key
from store.clock import from_micros

app = typer.Typer(no_args_is_help=True, help="API keys of services and administrators, and the master key.")

COLUMNS = ("id", "name", "scopes", "created_at", "revoked_at")


@app.command("create", cls=Command)
def create(
    name: Annotated[str, typer.Argument(parser=checked_name, metavar="NAME", help="What the key is for, for people.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; may be given several times.")],
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once."""
    with service() as opened:
        key, secret = create_key(opened.ledger, name, scope, _request())
    typer.echo(f"Key {key.key_id} ({name}): {', '.join(sorted(key.scopes))}", err=True)  # also where stdout is lost
    if as_json:
        print_json({**_shown(key), "key": secret})
    else:
        typer.echo(secret)


@app.command("list", cls=Command)
def show(as_json: AsJson = False) -> None:
    """Every key ever made, without its secret."""
    with reading() as opened:
        found = [_shown(key) for key in list_keys(opened.database)]
    if as_json:
        print_json({"keys": found})
    else:
        print_table([_cells(key) for key in found], COLUMNS)


@app.command("revoke", cls=Command)
def revoke(
    key_id: Annotated[str, typer.Argument(parser=checked_name, metavar="KEY_ID", help="The id, as `list` shows it.")],
    as_json: AsJson = False,
) -> None:
    """Refuse a key from now on."""
    with service() as opened:
        revoked = revoke_key(opened.ledger, key_id, _request())
    if as_json:
        print_json({"id": key_id, "revoked": revoked})
    typer.echo(f"Key {key_id} is revoked." if revoked else f"No key {key_id} is in force.", err=True)
    if not revoked:
        raise typer.Exit(NO)


app.command("rotate-master", cls=Command)(rotate_master.command)


def _request() -> Request:
    return Request(OPERATOR, new_uuid7())


def _cells(key: dict[str, Any]) -> dict[str, Any]:
    revoked_at = key["revoked_at"]
    return {
        **key,
        "scopes": " ".join(key["scopes"]),
        "created_at": shown(key["created_at"]),
        "revoked_at": revoked_at and shown(revoked_at),
    }


def _shown(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.key_id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "created_at": from_micros(key.created_at),
        "revoked_at": key.revoked_at and from_micros(key.revoked_at),
    }
