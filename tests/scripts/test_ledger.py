"""`./scripts/ledger`: how each command opens the store, what it prints, how it ends. The real script, as a process."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import text

from api.service import Service

Ledger = Callable[..., subprocess.CompletedProcess[str]]


def test_looking_at_a_ledger_that_is_not_there_makes_none(ledger: Ledger, tmp_path: Path):
    ran = ledger("keys", "list")
    assert ran.returncode == 3
    assert ran.stderr == f"There is no database at {tmp_path}/var/ledger.db.\n"
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_of_an_earlier_version_is_not_looked_at_before_the_service_has_added_what_is_new(
    beside: Ledger, service: Service
):
    with service.database.transaction() as connection:
        connection.execute(text("DROP TABLE parked"))
    ran = beside("status")
    assert (ran.returncode, ran.stdout) == (3, "")
    assert "it has no table parked. Start the service once" in ran.stderr


def test_a_key_is_made_shown_and_revoked(ledger: Ledger):
    made = json.loads(ledger("keys", "create", "gateway", "--scope", "sessions:create", "--json").stdout)
    assert made["key"].startswith("slk_")
    [shown] = json.loads(ledger("keys", "list", "--json").stdout)["keys"]
    assert shown == {name: value for name, value in made.items() if name != "key"}
    assert ledger("keys", "revoke", made["id"]).returncode == 0
    [shown] = json.loads(ledger("keys", "list", "--json").stdout)["keys"]
    assert shown["revoked_at"]
    assert made["id"] in ledger("keys", "list").stdout


def test_where_nobody_looks_on_a_row_is_a_line_however_long(ledger: Ledger):
    scopes = ("sessions:create", "users:admin", "audit:read", "audit:personal", "tokens:introspect")
    ledger("keys", "create", "gateway " * 10, *(word for scope in scopes for word in ("--scope", scope)))
    heading, row = ledger("keys", "list").stdout.splitlines()
    assert heading.split() == ["id", "name", "scopes", "created_at", "revoked_at"]
    assert all(scope in row for scope in scopes)


def test_revoking_a_key_that_is_not_in_force_says_no(ledger: Ledger):
    ledger("keys", "create", "gateway", "--scope", "sessions:create")
    ran = ledger("keys", "revoke", "unknown", "--json")
    assert (ran.returncode, ran.stderr) == (1, "No key unknown is in force.\n")
    assert json.loads(ran.stdout) == {"id": "unknown", "revoked": False}


def test_a_wrong_call_or_setting_is_told_and_touches_nothing(ledger: Ledger, tmp_path: Path):
    assert ledger("keys", "create", "gateway", "--scope", "everything").returncode == 2
    ran = ledger("keys", "list", LEDGER_PORT="none")
    assert ran.returncode == 2
    assert "LEDGER_PORT" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_printed_is_an_error(ledger: Ledger):
    ledger("keys", "create", "gateway", "--scope", "sessions:create")
    with Path("/dev/full").open("w") as full:
        ran = ledger("keys", "list", stdout=full)
    assert (ran.returncode, ran.stderr) == (3, "Cannot write: [Errno 28] No space left on device\n")


def test_a_reader_who_closes_the_pipe_ends_it_quietly(ledger: Ledger):
    ledger("keys", "create", "gateway", "--scope", "sessions:create")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        ran = ledger("keys", "list", stdout=closed)
    assert (ran.returncode, ran.stderr) == (-13, "")
