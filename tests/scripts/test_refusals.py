"""With `--json` a program that reads standard output learns of a refusal, whichever command it comes from."""

import json
from pathlib import Path

import pytest
import typer.main

from projections.leadership import leadership
from scripts.cli.commands import app
from scripts.cli.refusing import Command
from tests.projections.driver import Driver
from tests.scripts.conftest import Ledger


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay", "--user", "nobody"],
        ["replay", "--session", "unknown"],
        ["as-of", "--position", "99999", "--user", "alice"],
        ["as-of", "9999-12-31", "--user", "alice"],
        ["as-of", "2026-11-23", "--user", "nobody"],
        ["checkpoint"],
    ],
)
def test_what_is_not_there_is_a_document(beside: Ledger, driver: Driver, arguments: list[str]):
    driver.sign_in()
    ran = beside(*arguments, "--json")
    assert ran.returncode == 1
    assert json.loads(ran.stdout) == {"refused": ran.stderr.removesuffix("\n")}


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["resume", "nobody"], {"name": "nobody", "resumed": False}),
        (["keys", "revoke", "nobody"], {"id": "nobody", "revoked": False}),
    ],
)
def test_that_nothing_was_done_is_the_answer(beside: Ledger, driver: Driver, arguments: list[str], answer: object):
    driver.sign_in()
    ran = beside(*arguments, "--json")
    assert (ran.returncode, json.loads(ran.stdout)) == (1, answer)


def test_a_backup_that_is_refused_is_a_document_whatever_its_name(beside: Ledger, driver: Driver, tmp_path: Path):
    driver.sign_in()
    target = tmp_path / "f\udcff"
    target.mkdir()
    (target / "something").touch()
    ran = beside("backup", str(target), "--json")
    assert ran.returncode == 1
    assert json.loads(ran.stdout) == {"refused": ran.stderr.removesuffix("\n")}


@pytest.mark.parametrize("arguments", [["rebuild"], ["keys", "rotate-master"]])
def test_what_runs_already_is_a_document(beside: Ledger, driver: Driver, arguments: list[str]):
    driver.sign_in()
    service = driver.service
    leads = [leadership(service.database, "rebuild"), leadership(service.keys_database, "rotation")]
    assert all(lead.is_held() for lead in leads)
    try:
        ran = beside(*arguments, "--json")
    finally:
        for lead in leads:
            lead.release()
    assert ran.returncode == 1
    assert json.loads(ran.stdout)["refused"] in ran.stderr


def test_every_command_tells_its_refusals_that_way():
    commands = dict(typer.main.get_command(app).commands)
    commands |= commands.pop("keys").commands
    assert all(isinstance(command, Command) for command in commands.values())
    assert all("as_json" in [option.name for option in command.params] for command in commands.values())
