"""The operator's command line, on a ledger in a folder of its own."""

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest
from typer.testing import CliRunner

from api.service import Service
from scripts.cli.commands import app
from tests.postgres import Database
from tests.projections.driver import Driver

ROOT = Path(__file__).parents[2]

Ledger = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Runs `./scripts/ledger`; its files are in `tmp_path/var`."""
    return _running(
        {
            "LEDGER_DATABASE_URL": f"sqlite:///{tmp_path}/var/ledger.db",
            "LEDGER_KEYS_DATABASE_URL": f"sqlite:///{tmp_path}/var/keys.db",
            "LEDGER_MASTER_KEY_FILE": f"{tmp_path}/var/master.key",
        }
    )


@pytest.fixture
def settings(database: Database, tmp_path: Path) -> dict[str, str]:
    """The environment of whoever works on the database of `service`."""
    return {
        "LEDGER_DATABASE_URL": database.url,
        "LEDGER_KEYS_DATABASE_URL": database.keys_url,
        "LEDGER_MASTER_KEY_FILE": f"{tmp_path}/master.key",
    }


@pytest.fixture
def beside(settings: dict[str, str]) -> Ledger:
    """Runs `./scripts/ledger` on the database of `service`, once for each kind."""
    return _running(settings)


@pytest.fixture
def driver(service: Service) -> Iterator[Driver]:
    """At the wheel of `service`."""
    driver = Driver(service)
    yield driver
    driver.close()


def _running(settings: dict[str, str]) -> Ledger:
    """Within this process, which spares a start; `apart`, or where standard input or output matters, in its own."""

    def run(
        *arguments: str,
        apart: bool = False,
        stdin: int | IO[str] | None = None,
        stdout: int | IO[str] = subprocess.PIPE,
        **more: str,
    ) -> "subprocess.CompletedProcess[str]":
        environment = settings | more
        if apart or stdin is not None or stdout != subprocess.PIPE:
            return _in_its_own_process(arguments, environment, stdin, stdout)
        return _in_this_process(arguments, environment)

    return run


def _in_this_process(arguments: Sequence[str], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    ran = CliRunner().invoke(app, arguments, env=environment, catch_exceptions=False, prog_name="./scripts/ledger")
    return subprocess.CompletedProcess(arguments, ran.exit_code, ran.stdout, ran.stderr)


def _in_its_own_process(
    arguments: Sequence[str], environment: dict[str, str], stdin: int | IO[str] | None, stdout: int | IO[str]
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [ROOT / "scripts" / "ledger", *arguments],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
        text=True,
        timeout=60,
    )
