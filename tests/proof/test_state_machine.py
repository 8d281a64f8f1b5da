"""VER-01: random commands with a moving clock against `tests/proof/model.py`; all that can be seen agrees at each step.

It prints its seed. PROOF_SEED repeats a run, PROOF_STEPS makes it longer (at least so many; 10 000 for a night).
"""

import os
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from api.service import Service
from tests.postgres import Database, sqlite_database
from tests.proof.machine import LedgerMachine

SEED = int(os.environ.get("PROOF_SEED") or random.getrandbits(32))
STEPS = int(os.environ.get("PROOF_STEPS", 200))
SETTINGS = settings(
    max_examples=12,
    stateful_step_count=30,
    phases=[Phase.generate, Phase.shrink],
    deadline=None,
    database=None,
    print_blob=True,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)

NewMachine = Callable[[], LedgerMachine]


@pytest.fixture(params=["sqlite", "postgresql"])
def new_machine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> NewMachine:
    """Makes machines, each on an empty database, whose services do nothing on their own."""
    monkeypatch.setattr(Service, "start", lambda service: None)

    def empty_database(directory: Path) -> AbstractContextManager[Database]:
        if request.param == "postgresql":
            return request.getfixturevalue("postgres_cluster").fresh_database()
        return nullcontext(sqlite_database(directory))

    def new() -> LedgerMachine:
        directory = tmp_path_factory.mktemp("machine")
        return LedgerMachine(empty_database(directory), directory)

    return new


def test_ledger_read_model_and_http_agree_with_the_model_at_each_step(new_machine: NewMachine):
    seeds, steps = count(SEED), 0
    while steps < STEPS:
        steps += run(new_machine, next(seeds))
    print(f"{steps} steps")


def run(new_machine: NewMachine, number: int) -> int:
    """How many steps it took."""
    print(f"to run this again: PROOF_SEED={number}")
    machines: list[LedgerMachine] = []

    def noted() -> LedgerMachine:
        machines.append(new_machine())
        return machines[-1]

    run_state_machine_as_test(seed(number)(noted), settings=SETTINGS)
    return sum(machine.steps for machine in machines)
