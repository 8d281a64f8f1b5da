"""The operator's command line, on a ledger in a folder of its own."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ledger(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs `./scripts/ledger`; its files are in `tmp_path/var`."""
    environment = {
        **os.environ,
        "LEDGER_DATABASE_URL": f"sqlite:///{tmp_path}/var/ledger.db",
        "LEDGER_KEYS_DATABASE_URL": f"sqlite:///{tmp_path}/var/keys.db",
        "LEDGER_MASTER_KEY_FILE": f"{tmp_path}/var/master.key",
    }

    def run(
        *arguments: str, stdout: int | IO[str] = subprocess.PIPE, **more: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [ROOT / "scripts" / "ledger", *arguments],
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=environment | more,
            text=True,
            timeout=60,
        )

    return run
