"""What `./scripts/bench` makes of its measurements; and a short run, where its load generator is installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.benchmarks import load, report
from scripts.benchmarks.commands import CommandRate
from scripts.benchmarks.databases import Kind
from scripts.benchmarks.load import Run
from scripts.benchmarks.report import BEGIN, END, Measured
from scripts.benchmarks.requests import SCENARIOS, Figures
from scripts.benchmarks.storage import Storage

ROOT = Path(__file__).parents[2]


def run(rate: float, *, failed: int = 0) -> Run:
    return Run(rate=rate, requests=100, seconds=1, p50_ms=2, p99_ms=5, cpu_ms=1000 / rate, failed=failed)


def figures(*rates: float, bare: list[float], failed: int = 0) -> Figures:
    return Figures(SCENARIOS[0], [run(rate, failed=failed) for rate in rates], [run(rate) for rate in bare], events=0)


def test_a_share_compares_each_run_with_the_bare_runs_around_it():
    slowing = figures(500, 200, 100, bare=[1000, 1000, 600, 200])
    assert slowing.share == 0.25
    assert figures(700, bare=[1000, 1000]).share == 0.7


def test_a_row_says_whether_the_target_is_met():
    assert "| **0.70** | 0.65 |" in report.request_row(Kind.SQLITE, figures(700, bare=[1000, 1000]))
    assert "| 0.64 (missed) | 0.65 |" in report.request_row(Kind.SQLITE, figures(640, bare=[1000, 1000]))
    assert "| **0.64** | 0.40 |" in report.request_row(Kind.POSTGRESQL, figures(640, bare=[1000, 1000]))


def test_a_run_with_failed_requests_is_no_measurement():
    with pytest.raises(RuntimeError, match="1 requests of check failed"):
        report.request_row(Kind.SQLITE, figures(700, bare=[1000, 1000], failed=1))


def test_the_figures_take_the_place_of_the_last_ones_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    document = tmp_path / "performance.md"
    document.write_text(f"above\n{BEGIN}\nold figures\n{END}\nbelow\n")
    monkeypatch.setattr(report, "DOCUMENT", document)
    measured = Measured(
        Kind.SQLITE,
        "3.40.1",
        [figures(700, bare=[1000, 1000])],
        [CommandRate("create", 5000, 10, 10)],
        Storage(200_000, 100, 201, 50_000, 340.4),
    )
    for _ in range(2):
        report.write([measured], "wrk 4.1.0", rounds=3, seconds=4)
    text = document.read_text()
    assert text.startswith(f"above\n{BEGIN}\nMeasured on ")
    assert text.endswith(f"{END}\nbelow\n")
    assert "old figures" not in text
    assert text.count("### SQLite 3.40.1") == 1
    assert "| 200,000 | 100 | 201 (missed) | 50,000 | **340** |" in text
    assert 'x-axis ["check"]' in text and "bar [0.70]" in text and "line [0.65]" in text


def test_without_a_load_generator_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RuntimeError, match="apt install wrk"):
        load.require_wrk()


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_a_short_run_measures_what_it_is_asked_for(tmp_path: Path):
    command = [sys.executable, "-m", "scripts.benchmarks", "--database", "sqlite", "--only", "recorded touch"]
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)}
    before = (ROOT / "docs" / "performance.md").read_bytes()
    ran = subprocess.run(
        [*command, "--users", "20", "--rounds", "1", "--seconds", "1"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    [row] = [line for line in ran.stdout.splitlines() if line.startswith("| recorded touch |")]
    assert float(row.split("|")[-2]) > 0.1
    assert (ROOT / "docs" / "performance.md").read_bytes() == before
    assert list(tmp_path.iterdir()) == []
