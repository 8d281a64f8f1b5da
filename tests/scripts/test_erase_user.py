"""`./scripts/ledger erase-user`: it asks, it is done when it ends, and it may be repeated."""

import json
import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Ledger = Callable[..., subprocess.CompletedProcess[str]]

USER_ID = "canary.person/sessions/"


def test_it_says_whether_it_has_erased_him_now_or_before(ledger: Ledger):
    for erased_now in (True, False):
        ran = ledger("erase-user", USER_ID, "--yes", "--json")
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout) == {"user_id": USER_ID, "erased": True, "erased_now": erased_now}


def test_his_id_is_in_no_file_afterwards(ledger: Ledger, tmp_path: Path):
    ran = ledger("erase-user", USER_ID, "--yes")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "The user is erased.\n")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if USER_ID.encode() in path.read_bytes()] == []


def test_where_nobody_can_confirm_it_nothing_is_done(ledger: Ledger, tmp_path: Path):
    ran = ledger("erase-user", USER_ID, stdin=subprocess.DEVNULL)
    assert (ran.returncode, ran.stderr) == (2, "Nobody is there to confirm it: say --yes.\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("typed", "code"), [(USER_ID, 0), ("somebody else", 1), ("y", 1)])
def test_at_a_terminal_the_id_is_typed_to_confirm_it(ledger: Ledger, tmp_path: Path, typed: str, code: int):
    terminal, end = pty.openpty()
    os.write(terminal, f"{typed}\n".encode())
    with os.fdopen(end) as stdin:
        ran = ledger("erase-user", USER_ID, "--json", stdin=stdin)
    os.close(terminal)
    assert ran.returncode == code, ran.stderr
    assert ("refused" in json.loads(ran.stdout)) == (code == 1)
    assert (tmp_path / "var").exists() == (code == 0)
