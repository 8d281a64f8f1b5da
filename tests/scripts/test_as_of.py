"""`./scripts/ledger as-of`: who was signed in at a moment, beside a service that is running."""

import json

import pytest

from tests.clock import ManualClock
from tests.projections.driver import Driver
from tests.scripts.conftest import Ledger


def test_it_says_what_was_and_how_it_ended(beside: Ledger, driver: Driver, clock: ManualClock):
    session_id = driver.sign_in()
    clock.advance(60)
    driver.revoke(session_id)
    driver.sign_in("bob")
    ran = beside("as-of", "2026-11-23T13:00:30+01:00", "--user", "alice", "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    answer = json.loads(ran.stdout)
    assert (answer["as_of"], answer["position"]) == ("2026-11-23T12:00:30Z", 2)
    [shown] = answer["sessions"]
    assert (shown["id"], shown["ended_at"], shown["end_reason"], shown["ended_by"]) == (
        *(str(session_id), "2026-11-23T12:01:00Z", "revoked_by_user", "key:front-desk"),
    )  # fmt: skip
    assert json.loads(beside("as-of", "--position", "2", "--user", "alice", "--json").stdout)["sessions"] == [shown]
    heading, _, row = beside("as-of", "--position", "2", "--user", "alice").stdout.splitlines()
    assert heading == "At 2026-11-23T12:00:00.000000Z, position 2, 1 sessions were active."
    assert "revoked_by_user" in row
    assert json.loads(beside("as-of", "2026-11-23", "--user", "alice", "--json").stdout)["position"] == 0


def test_what_is_not_known_is_told(beside: Ledger, driver: Driver):
    driver.sign_in()
    for arguments, said in (
        (["2026-11-23", "--user", "mallory"], "The log knows no user mallory.\n"),
        (["--position", "3", "--user", "alice"], "The log has no position 3: it ends at 2.\n"),
        (["9999-12-31", "--user", "alice"], "9999-12-31T00:00:00+00:00 has not come yet.\n"),
    ):
        ran = beside("as-of", *arguments)
        assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", said)


@pytest.mark.parametrize("arguments", [[], ["2026-11-23", "--position", "3"], ["noon"]])
def test_a_wish_that_is_not_understood_is_told(ledger: Ledger, arguments: list[str]):
    ran = ledger("as-of", *arguments, "--user", "alice")
    assert (ran.returncode, ran.stdout) == (2, "")
