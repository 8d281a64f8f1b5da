"""`./scripts/ledger erase-user`: forget a person for good."""

import sys
from typing import Annotated

import typer

from api.ids import new_uuid7
from domain.ledger import Request
from projections.api_keys import OPERATOR
from scripts.cli.names import user_id as checked_user
from scripts.cli.opening import BAD_USAGE, service
from scripts.cli.output import AsJson, print_json
from scripts.cli.refusing import Refused
from store.outcome import outcome


def erase_user(
    user_id: Annotated[
        str,
        typer.Argument(parser=checked_user, metavar="USER_ID", help="The user's id, as the sign-in service gave it."),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """End a user's sessions, destroy his key and refuse him for ever. Repeating it finishes what was interrupted."""
    if not yes:
        _confirm(user_id)
    with service() as opened:
        erasing = opened.ledger.erase_user(user_id, Request(OPERATOR, new_uuid7()))
        erased_now = outcome(erasing).result
        opened.erasure.carry_out(opened.keys.pseudonym(user_id))
    if as_json:
        print_json({"user_id": user_id, "erased": True, "erased_now": erased_now})
    else:
        typer.echo("The user is erased." if erased_now else "The user was erased before.", err=True)


def _confirm(user_id: str) -> None:
    """Have the id typed once more: there is no way back."""
    if not sys.stdin.isatty():
        typer.echo("Nobody is there to confirm it: say --yes.", err=True)
        raise typer.Exit(BAD_USAGE)
    typer.echo("This cannot be undone. Type the user's id to confirm: ", err=True, nl=False)
    if sys.stdin.readline().removesuffix("\n") != user_id:
        raise Refused("That is another id: nothing was done.")
