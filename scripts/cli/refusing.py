"""How a command refuses a wish: in words for people, and with `--json` as a document for programs."""

from typing import Any

import typer
from typer.core import TyperCommand

from scripts.cli.output import print_json, printable

NO = 1
"""The answer is no: nothing was found, something differs, or a wish was refused."""


class Refused(Exception):
    """A command raises it with the reason, to end with exit code 1."""


class Command(TyperCommand):
    """A command with `as_json` among its parameters, as each of them has it."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; tell its refusal on stderr, and with `--json` also on stdout."""
        try:
            return super().invoke(ctx)
        except Refused as error:
            reason = printable(error)
            typer.echo(reason, err=True)
            if ctx.params["as_json"]:
                print_json({"refused": reason})
            raise typer.Exit(NO) from error
