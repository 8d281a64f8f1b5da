"""T-11: sign-in against disable, in two real processes that begin at one moment."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from api.service import Service
from tests.postgres import Database
from tests.projections.other_process import OtherProcess
from tests.store.given import assert_consistent, topics

RACES = 200
HEAD_START_S = 0.003
STEP_S = 0.0001


class Outcome(NamedTuple):
    answer: str
    begun: float
    ended: float


class Race(NamedTuple):
    sign_in: Outcome
    disable: Outcome

    @property
    def is_tight(self) -> bool:
        """Each had begun before the other had ended."""
        return max(self.sign_in.begun, self.disable.begun) < min(self.sign_in.ended, self.disable.ended)

    @property
    def was_refused(self) -> bool:
        return self.sign_in.answer == "UserDisabled"


@pytest.fixture
def processes(database: Database, tmp_path: Path) -> Iterator[tuple[OtherProcess, OtherProcess]]:
    with ExitStack() as stack:
        both = [OtherProcess(database, tmp_path / "master.key") for _ in range(2)]
        for process in both:
            stack.callback(process.kill)
        yield both[0], both[1]


def test_never_a_live_session_of_a_disabled_user_whoever_wins(
    service: Service, processes: tuple[OtherProcess, OtherProcess]
):
    races: list[Race] = []
    lead_s = 0.0
    for number in range(RACES):
        user_id, has_signed_in_before = f"user-{number}", number % 2 == 1
        if has_signed_in_before:
            processes[number // 2 % 2].ask("sign_in", user_id)
        race = run(user_id, *processes, lead_s)
        assert race.disable.answer == "True"
        assert [process.ask("accepted", user_id) for process in processes] == ["0", "0"]
        began = has_signed_in_before + (not race.was_refused)
        assert topics(service, user_id) == ["UserEnrolled", *["SessionCreated"] * began, "UserDisabled"]
        lead_s += STEP_S if race.was_refused else -STEP_S  # so that the next one is as open as can be
        races.append(race)
    assert_consistent(service)
    refused = sum(race.was_refused for race in races)
    tight = sum(race.is_tight for race in races)
    print(f"{refused} of {RACES} sign-ins were refused; {tight} races were tight")
    assert 0 < refused < RACES
    assert tight > RACES / 10


def run(user_id: str, signing_in: OtherProcess, disabling: OtherProcess, lead_s: float) -> Race:
    """One race; the sign-in begins `lead_s` before the disable, or after it when that is negative."""
    start = time.monotonic() + HEAD_START_S
    signing_in.tell("at", start + max(0, -lead_s), "sign_in", user_id)
    disabling.tell("at", start + max(0, lead_s), "disable", user_id)
    return Race(outcome(signing_in.answer()), outcome(disabling.answer()))


def outcome(answer: str) -> Outcome:
    told, begun, ended = answer.split()
    return Outcome(told, float(begun), float(ended))
