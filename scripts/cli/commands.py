"""The commands of `./scripts/ledger`."""

import typer

from scripts.cli import backup, check_restore, checkpoint, export, keys, rebuild, status, verify
from scripts.cli.as_of import as_of
from scripts.cli.erase_user import erase_user
from scripts.cli.refusing import Command
from scripts.cli.replay import replay

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # it prints local variables, and they may hold people's data
    help="Operate and audit the session ledger.",
)
app.add_typer(keys.app, name="keys")
app.command("erase-user", cls=Command)(erase_user)
app.command("replay", cls=Command)(replay)
app.command("rebuild", cls=Command)(rebuild.command)
app.command("as-of", cls=Command)(as_of)
app.command("verify", cls=Command)(verify.command)
app.command("checkpoint", cls=Command)(checkpoint.command)
app.command("export", cls=Command)(export.command)
app.command("backup", cls=Command)(backup.command)
app.command("check-restore", cls=Command)(check_restore.command)
app.command("status", cls=Command)(status.command)
app.command("resume", cls=Command)(status.resume)
