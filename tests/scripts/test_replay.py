"""`./scripts/ledger replay`: the story of a user or of a session, beside a service that is running."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from domain.events import EndReason
from domain.ledger import Request
from store.api_keys import Scope, create_key
from tests.clock import ManualClock
from tests.projections.driver import Driver
from tests.scripts.conftest import Ledger

ROOT = Path(__file__).parents[2]
TERMINAL = "\x1b[2J"


def story(beside: Ledger, *arguments: str) -> list[dict]:
    ran = beside("replay", *arguments, "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    return json.loads(ran.stdout)["events"]


def test_a_users_story_says_what_happened_who_did_it_and_why(beside: Ledger, driver: Driver, clock: ManualClock):
    session_id = driver.sign_in(idp_name="google")
    clock.advance(600)
    driver.touch(session_id)
    driver.revoke(session_id, EndReason.SIGNED_OUT, actor="self")
    driver.sign_in("bob")
    enrolled, created, touched, revoked = story(beside, "--user", "alice")
    assert [e["event"] for e in (enrolled, created, touched, revoked)] == [
        *("UserEnrolled", "SessionCreated", "SessionTouched", "SessionRevoked")
    ]  # fmt: skip
    assert [e["position"] for e in (enrolled, created, touched, revoked)] == [1, 2, 3, 4]
    assert created["session_id"] == touched["session_id"] == revoked["session_id"] == str(session_id)
    assert created["recorded_at"] == created["time"] == "2026-11-23T12:00:00Z"
    assert created["details"]["idp_name"] == "google"
    assert "client" not in created["details"]
    assert "token_hash" not in created["details"]
    assert (revoked["actor"], revoked["actor_name"], revoked["reason"]) == ("self", "alice", "signed_out")


def test_the_story_of_a_session_is_its_own(beside: Ledger, driver: Driver):
    mine, other = driver.sign_in(), driver.sign_in()
    driver.revoke(mine)
    assert [e["event"] for e in story(beside, "--session", str(mine))] == ["SessionCreated", "SessionRevoked"]
    assert [e["event"] for e in story(beside, "--session", str(other))] == ["SessionCreated"]


def test_an_end_by_policy_names_the_event_that_caused_it(beside: Ledger, driver: Driver, clock: ManualClock):
    driver.sign_in()
    driver.disable()
    driver.enable()
    disabled, ended = story(beside, "--user", "alice")[2:4]
    assert ended["cause"] == {"position": 3, "event": "UserDisabled", "event_id": disabled["event_id"]}
    session_id = driver.sign_in()
    clock.advance(1)
    driver.ledger.invalidate_sessions(None, EndReason.REVOKED_BY_ADMIN, Request("key:front-desk", uuid4())).result(9)
    driver.service.sweeper.sweep()
    [_, ended] = story(beside, "--session", str(session_id))
    assert (ended["cause"]["event"], ended["cause"]["position"]) == ("SessionsInvalidatedBefore", 7)
    assert "because of 7 SessionsInvalidatedBefore" in beside("replay", "--session", str(session_id)).stdout


def test_actors_are_named_while_their_names_are_known(beside: Ledger, driver: Driver):
    key, _ = create_key(driver.service.ledger, "front desk", [Scope.USERS_ADMIN], Request("operator", uuid4()))
    first, second, third = driver.sign_in(), driver.sign_in(), driver.sign_in()
    driver.sign_in("root@example.com")
    driver.revoke(first, actor=f"key:{key.key_id}")
    driver.revoke(second, actor=f"user:{driver.stream('root@example.com')}")
    driver.revoke(third, actor=f"user:{uuid4()}")
    assert [e["actor_name"] for e in story(beside, "--user", "alice")[-3:]] == ["front desk", "root@example.com", None]


def test_a_story_may_begin_and_end_at_moments(beside: Ledger, driver: Driver, clock: ManualClock):
    for _ in range(3):
        driver.sign_in()
        clock.advance(86_400)
    assert [e["position"] for e in story(beside, "--user", "alice", "--from", "2026-11-24")] == [3, 4, 5, 6]
    [only] = [e for e in story(beside, "--user", "alice", "--from", "2026-11-24", "--to", "2026-11-24")
              if e["event"] == "SessionCreated"]  # fmt: skip
    assert only["recorded_at"] == "2026-11-24T12:00:00Z"
    at = "2026-11-23T13:00:00+01:00"
    assert [e["position"] for e in story(beside, "--user", "alice", "--from", at, "--to", at)] == [1, 2]


def test_a_long_story_is_told_page_by_page(beside: Ledger, driver: Driver, clock: ManualClock):
    for _ in range(40):
        ids = [driver.signing_in() for _ in range(30)]
        assert ids[-1].result(9)
        clock.advance(1)
    assert [e["position"] for e in story(beside, "--user", "alice")] == list(range(1, driver.head() + 1))


def test_what_somebody_called_himself_commands_no_terminal(beside: Ledger, driver: Driver):
    session = driver.sign_in(TERMINAL, idp_name=TERMINAL)
    driver.revoke(session, actor="self", user_id=TERMINAL)
    told = beside("replay", "--session", str(session)).stdout
    assert "\x1b" not in told
    assert "by self (\\x1b[2J)" in told
    assert beside("replay", "--session", TERMINAL).stderr == "The log knows no session \\x1b[2J.\n"


def test_whom_the_log_does_not_know_it_tells_nothing_of(beside: Ledger, driver: Driver):
    driver.sign_in()
    for name in (("--user", "mallory"), ("--session", str(uuid4())), ("--session", "no-uuid")):
        ran = beside("replay", *name)
        assert (ran.returncode, ran.stdout) == (1, "")
        assert ran.stderr == f"The log knows no {name[0][2:]} {name[1]}.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["--user", "alice", "--session", str(uuid4())], ["--user", "alice", "--from", "yesterday"]),
        *(["--user", "alice", "--from", "2026-11-23T10:00:00"], ["--user", "alice", "--to", "2026-11-23", "--follow"]),
    ],
)
def test_a_wish_that_is_not_understood_is_told(ledger: Ledger, arguments: list[str]):
    ran = ledger("replay", *arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr


# -- following


@contextmanager
def following(settings: dict[str, str], *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [ROOT / "scripts" / "ledger", "replay", *arguments, "--follow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | settings,
        text=True,
    )
    give_up = threading.Timer(30, process.kill)
    give_up.start()
    try:
        yield process
    finally:
        give_up.cancel()
        process.kill()
        process.communicate()


def test_it_goes_on_with_new_events_until_ctrl_c(settings: dict[str, str], driver: Driver):
    session_id = driver.sign_in()
    with following(settings, "--user", "alice", "--json") as process:
        assert [json.loads(process.stdout.readline())["event"] for _ in range(2)] == ["UserEnrolled", "SessionCreated"]
        driver.sign_in("bob")
        driver.revoke(session_id)
        assert json.loads(process.stdout.readline())["position"] == driver.head()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert (process.stdout.read(), process.stderr.read()) == ("", "")


def test_it_ends_when_its_reader_has_left_though_nothing_happens(settings: dict[str, str], driver: Driver):
    driver.sign_in()
    with following(settings, "--user", "alice") as process:
        assert "UserEnrolled" in process.stdout.readline()
        process.stdout.close()
        assert process.wait(20) == -signal.SIGPIPE
        assert process.stderr.read() == ""
