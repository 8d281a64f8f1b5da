"""The commands of `./scripts/ledger`."""

import typer

from scripts.cli import backup, check_restore, checkpoint, export, keys, rebuild, status, verify
from scripts.cli.as_of import as_of
from scripts.cli.erase_user import erase_user
from scripts.cli.replay import replay

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # it prints local variables, and they may hold people's data
    help="Operate and audit the session ledger.",
)
app.add_typer(keys.app, name="keys")
app.command("erase-user")(erase_user)
app.command("replay")(replay)
app.command("rebuild")(rebuild.command)
app.command("as-of")(as_of)
app.command("verify")(verify.command)
app.command("checkpoint")(checkpoint.command)
app.command("export")(export.command)
app.command("backup")(backup.command)
app.command("check-restore")(check_restore.command)
app.command("status")(status.command)
app.command("resume")(status.resume)
