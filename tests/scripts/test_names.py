"""What an operator calls users and keys is checked as HTTP checks it, before anything is touched."""

from pathlib import Path

import pytest

from tests.scripts.conftest import Ledger


@pytest.mark.parametrize("user", ["", "a\nb", "a" * 256, "\udc80"])
def test_nobody_is_erased_whom_http_would_not_know(ledger: Ledger, tmp_path: Path, user: str):
    ran = ledger("erase-user", "--yes", "--", user)
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "k" * 101, "\udc80"])
def test_a_key_has_a_name_that_can_be_read(ledger: Ledger, tmp_path: Path, name: str):
    ran = ledger("keys", "create", "--scope", "sessions:create", "--", name)
    assert (ran.returncode, "Traceback" in ran.stderr) == (2, False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [["keys", "revoke", "--"], ["resume", "--"], ["export", "--format", "csv", "--actor"]],
    ids=["a key's id", "a follower", "an actor"],
)
def test_no_other_name_commands_a_terminal_or_breaks_a_command(ledger: Ledger, tmp_path: Path, command: list[str]):
    for name in ("\udc80", "\x1b[31m"):
        ran = ledger(*command, name)
        assert (ran.returncode, "Traceback" in ran.stderr, "\x1b[31m" in ran.stderr) == (2, False, False)
    assert list(tmp_path.iterdir()) == []
