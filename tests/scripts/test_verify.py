"""`./scripts/ledger verify` and `checkpoint`, as an operator and an auditor call them."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from api.ids import new_uuid7
from api.service import Service, Stores
from domain.session import Limits
from store.notes import Verifier
from tests.scripts.conftest import Ledger
from tests.store.given import Caller, result


@pytest.fixture
def var(tmp_path: Path) -> Path:
    return tmp_path / "var"


@pytest.fixture
def log(var: Path) -> Iterator[Service]:
    """Six events, of which five are sealed."""
    url, keys_url = f"sqlite:///{var}/ledger.db", f"sqlite:///{var}/keys.db"
    service = Service(Stores(url, keys_url, var / "master.key"), Limits(), new_uuid7)
    for _ in range(4):
        result(Caller(service).creates())
    service.sealer.seal()
    result(Caller(service).creates())
    yield service
    service.close()


def alter(var: Path, *statements: str) -> None:
    with closing(sqlite3.connect(var / "ledger.db", isolation_level=None)) as file:
        for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            file.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            file.execute(statement)


@pytest.mark.usefixtures("log")
def test_a_log_that_nobody_altered_is_intact(ledger: Ledger):
    ran = ledger("verify")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "6 events: intact\ncheckpoints: 1, the last at 5; events that are newer: 1\n"
    assert json.loads(ledger("verify", "--json").stdout) == {
        "intact": True,
        "events": 6,
        "sealed": 5,
        "unsealed": 1,
        "checkpoints": 1,
        "first_bad_position": None,
        "findings": [],
        "findings_left_out": 0,
        "beside": [],
    }


@pytest.mark.usefixtures("log")
def test_an_event_that_was_altered_is_named(ledger: Ledger, var: Path):
    alter(var, "UPDATE events SET topic = 'UserDisabled' WHERE position = 3")
    ran = ledger("verify")
    assert ran.returncode == 1
    assert ran.stdout.startswith("position 3: ")
    assert "6 events: NOT intact\n" in ran.stdout
    assert json.loads(ledger("verify", "--json").stdout)["first_bad_position"] == 3


@pytest.mark.usefixtures("log")
def test_a_log_that_was_cut_behind_the_signers_memory_is_found(ledger: Ledger, var: Path):
    alter(
        var,
        "DELETE FROM events WHERE position > 3",
        "UPDATE head SET position = 3, recorded_at = (SELECT recorded_at FROM events WHERE position = 3)",
        "DELETE FROM checkpoints",
        "DELETE FROM tiles",
    )
    ran = ledger("verify")
    assert ran.returncode == 1
    assert ran.stdout.startswith("position 4: missing: the signer's memory was signed at 5\n")


@pytest.mark.usefixtures("log")
def test_a_log_that_nothing_protects_any_more_is_told(ledger: Ledger, var: Path):
    alter(var, "DROP TABLE checkpoints")
    ran = ledger("verify")
    assert ran.returncode == 1
    assert "beside the events: the table checkpoints is missing\n" in ran.stdout
    assert 'what protects the log is missing, changed or disabled: "CREATE TRIGGER events_no_update ' in ran.stdout
    assert "6 events: intact\n" in ran.stdout


@pytest.mark.usefixtures("log")
def test_a_log_without_events_cannot_be_read(ledger: Ledger, var: Path):
    alter(var, "DROP TABLE events")
    ran = ledger("verify")
    assert ran.returncode == 3
    assert "the table events is missing" in ran.stderr


def test_an_auditor_needs_the_public_key_and_a_note_only(ledger: Ledger, log: Service, var: Path, tmp_path: Path):
    vkey = ledger("checkpoint", "--key").stdout.strip()
    note = tmp_path / "kept"
    note.write_text(ledger("checkpoint").stdout)
    assert vkey == log.signing_key.verifier.vkey
    assert Verifier.parse(vkey).open(note.read_text()).size == 5
    assert json.loads(ledger("checkpoint", "--json").stdout) == {"checkpoint": note.read_text()}
    for name in ("signing.key", "signing.key.last", "master.key"):
        (var / name).unlink()
    assert ledger("verify", "--key", vkey, "--checkpoint", str(note)).returncode == 0
    alter(var, "DELETE FROM checkpoints", "UPDATE events SET recorded_at = recorded_at + 1 WHERE position = 5")
    assert ledger("verify", "--key", vkey, "--checkpoint", str(note)).returncode == 1


@pytest.mark.usefixtures("log")
def test_what_cannot_be_verified_with_is_told(ledger: Ledger, var: Path, tmp_path: Path):
    assert ledger("verify", "--key", "nonsense").returncode == 2
    ran = ledger("verify", "--checkpoint", str(tmp_path / "nothing"))
    assert ran.returncode == 3
    assert "is no checkpoint of this key" in ran.stderr
    (var / "signing.key.last").unlink()
    ran = ledger("verify")
    assert ran.returncode == 3
    assert "What was signed last cannot be read" in ran.stderr
    (var / "signing.key").unlink()
    ran = ledger("verify")
    assert ran.returncode == 3
    assert "signing.key is missing" in ran.stderr


def test_nothing_is_signed_yet(ledger: Ledger, var: Path):
    url, keys_url = f"sqlite:///{var}/ledger.db", f"sqlite:///{var}/keys.db"
    Service(Stores(url, keys_url, var / "master.key"), Limits(), new_uuid7).close()
    ran = ledger("checkpoint")
    assert (ran.returncode, ran.stderr) == (1, "Nothing is signed yet.\n")
    assert ledger("verify").stdout == "0 events: intact\ncheckpoints: 0, the last at 0; events that are newer: 0\n"


@pytest.mark.usefixtures("log")
def test_an_export_is_verified_offline(ledger: Ledger, var: Path, tmp_path: Path):
    vkey, note, export = ledger("checkpoint", "--key").stdout.strip(), tmp_path / "note", tmp_path / "export"
    note.write_text(ledger("checkpoint").stdout)
    export.write_text(ledger("export", "--format", "ndjson").stdout)
    for path in [*var.iterdir()]:
        path.unlink()
    offline = ("verify", "--export", str(export), "--key", vkey, "--checkpoint", str(note))
    ran = ledger(*offline)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "6 events: intact\ncheckpoints: 1, the last at 5; events that are newer: 1\n"
    export.write_text(export.read_text().replace('"position":"3"', '"position":"4"'))
    ran = ledger(*offline)
    assert (ran.returncode, ran.stdout.splitlines()[0]) == (
        1,
        "position 3: the line says something else than its leaf: position",
    )
    export.write_text("".join(export.read_text().splitlines(keepends=True)[2:]))
    ran = ledger(*offline)
    assert ran.returncode == 2
    assert "only a whole one can be verified" in " ".join(ran.stderr.replace("│", " ").split())
    assert ledger("verify", "--export", str(export), "--key", vkey).returncode == 2
    assert ledger("verify", "--export", str(tmp_path / "nothing"), *offline[3:]).returncode == 3
