"""The operator's command line, on a ledger in a folder of its own."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from api.service import Service
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
    def run(
        *arguments: str, stdin: int | IO[str] | None = None, stdout: int | IO[str] = subprocess.PIPE, **more: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [ROOT / "scripts" / "ledger", *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=os.environ | settings | more,
            text=True,
            timeout=60,
        )

    return run
