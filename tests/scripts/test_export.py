"""`./scripts/ledger export`: a file that is whole or not there, beside a service that is running."""

import csv
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.projections.driver import Driver
from tests.scripts.conftest import Ledger

ROOT = Path(__file__).parents[2]


def test_it_goes_to_standard_output_and_says_where_to_go_on(beside: Ledger, driver: Driver):
    driver.sign_in()
    ran = beside("export", "--format", "ndjson")
    assert (ran.returncode, ran.stderr) == (0, "2 events. To go on later: --after 2\n")
    assert [json.loads(line)["position"] for line in ran.stdout.splitlines()] == ["1", "2"]
    driver.sign_in("bob")
    ran = beside("export", "--format", "ndjson", "--after", "2", "--json")
    assert json.loads(ran.stderr) == {"events": 2, "position": 4, "selection": None}
    assert [json.loads(line)["position"] for line in ran.stdout.splitlines()] == ["3", "4"]


def test_where_standard_output_is_free_the_document_is_there(beside: Ledger, driver: Driver, tmp_path: Path):
    driver.sign_in()
    ran = beside("export", "--format", "csv", "--output", str(tmp_path / "log.csv"), "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout) == {"events": 2, "position": 2, "selection": None}


def test_filters_are_those_of_the_api(beside: Ledger, driver: Driver):
    mine = driver.sign_in()
    driver.sign_in("bob")
    for arguments, expected in (
        (["--user", "bob"], ["3", "4"]),
        (["--session", str(mine)], ["2"]),
        (["--event-type", "UserEnrolled", "--actor", "key:front-desk"], ["1", "3"]),
        (["--to", "2026-11-22"], []),
    ):
        ran = beside("export", "--format", "ndjson", *arguments)
        assert [json.loads(line)["position"] for line in ran.stdout.splitlines()] == expected, arguments
        assert "A selection, as each line says" in ran.stderr


def test_a_table_says_that_it_is_no_evidence(beside: Ledger, driver: Driver, tmp_path: Path):
    driver.sign_in()
    ran = beside("export", "--format", "csv", "--output", str(tmp_path / "log.csv"))
    assert (ran.returncode, ran.stdout) == (0, "")
    assert "no evidence" in ran.stderr
    with (tmp_path / "log.csv").open(newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["position", "1", "2"]


def test_a_file_that_cannot_be_written_is_not_there(ledger: Ledger, tmp_path: Path):
    ledger("keys", "create", "gateway", "--scope", "sessions:create")
    ran = ledger("export", "--format", "ndjson", "--output", str(tmp_path / "nowhere" / "log"), apart=True)
    assert ran.returncode == 3
    assert ran.stderr.startswith("Cannot write: ")
    with Path("/dev/full").open("w") as full:
        ran = ledger("export", "--format", "csv", stdout=full)
    assert (ran.returncode, ran.stderr) == (3, "Cannot write: [Errno 28] No space left on device\n")


def test_a_device_or_a_link_is_not_replaced_by_a_file(ledger: Ledger, tmp_path: Path):
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "elsewhere")
    for there in (pipe, link):
        assert ledger("export", "--format", "ndjson", "--output", str(there)).returncode == 2
    assert pipe.is_fifo()
    assert link.is_symlink()


def test_a_wish_that_is_not_understood_is_told(ledger: Ledger):
    for arguments in ([], ["--format", "xml"], ["--format", "csv", "--event-type", "Nothing"]):
        ran = ledger("export", *arguments)
        assert (ran.returncode, ran.stdout) == (2, "")


@pytest.mark.parametrize(("told", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_nothing_half_written_has_the_name(settings: dict[str, str], driver: Driver, tmp_path: Path, told, code):
    for _ in range(5):
        assert [driver.signing_in() for _ in range(60)][-1].result(20)
    target = tmp_path / "files" / "log"
    target.parent.mkdir()
    target.write_text("as it was")
    command = [ROOT / "scripts" / "ledger", "export", "--format", "ndjson", "--output", target]
    with subprocess.Popen(command, env=os.environ | settings, stderr=subprocess.DEVNULL) as process:
        give_up = time.monotonic() + 30
        while len(list(target.parent.iterdir())) == 1 and process.poll() is None:
            assert time.monotonic() < give_up
        process.send_signal(told)
        ended = process.wait(30)
    assert ended in (code, 0)
    text = target.read_text()
    assert text == "as it was" if ended else text.count("\n") == driver.head()
    if told is signal.SIGINT:
        assert list(target.parent.iterdir()) == [target]


def test_a_file_that_does_not_fit_is_not_there(settings: dict[str, str], driver: Driver, tmp_path: Path):
    for _ in range(5):
        assert [driver.signing_in() for _ in range(60)][-1].result(20)
    (tmp_path / "files").mkdir()
    limit = "ulimit -f 100; exec "  # blocks of 512 bytes: as when the disk is full
    command = f"{limit} {ROOT}/scripts/ledger export --format ndjson --output {tmp_path}/files/log"
    ran = subprocess.run(
        ["sh", "-c", command], env=os.environ | settings, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stderr) == (3, "Cannot write: [Errno 27] File too large\n")
    assert list((tmp_path / "files").iterdir()) == []
