"""`./scripts/ledger status` and `resume`, beside a service that is running."""

import json

from projections.parking import Parked, park, parked_now
from tests.projections.driver import Driver
from tests.scripts.conftest import Ledger


def track(driver: Driver, name: str, position: int) -> None:
    with driver.service.database.transaction() as connection:
        connection.exec_driver_sql(f"DELETE FROM tracking WHERE name = '{name}'")
        connection.exec_driver_sql(f"INSERT INTO tracking VALUES ('{name}', {position})")


def test_it_says_where_the_log_ends_and_how_far_everybody_is(beside: Ledger, driver: Driver):
    driver.sign_in()
    track(driver, "audit.1", 1)
    track(driver, "destroy-key-on-user-erased", 2)
    ran = beside("status", "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    told = json.loads(ran.stdout)
    assert (told["head"], told["recorded_at"]) == (2, "2026-11-23T12:00:00Z")
    standing = {row.pop("name"): row for row in told["followers"]}
    assert (standing["audit.1"]["position"], standing["audit.1"]["lag_events"]) == (1, 1)
    assert standing["audit.1"]["lag_seconds"] > 0
    assert standing["destroy-key-on-user-erased"] == {
        **{"position": 2, "lag_events": 0, "lag_seconds": 0.0, "parked": None, "resume": None}
    }
    heading, *_ = beside("status").stdout.splitlines()
    assert heading == "The log ends at position 2, recorded at 2026-11-23T12:00:00.000000Z."


def test_who_is_parked_is_told_and_may_try_again(beside: Ledger, driver: Driver):
    driver.sign_in()
    with driver.service.database.transaction() as connection:
        park(connection, Parked("audit.1", 1, "KeyError('x') at position 2", 0))
    ran = beside("status")
    assert ran.returncode == 1
    [row] = [line for line in ran.stdout.splitlines() if "audit.1" in line]
    assert "KeyError('x') at position 2" in row
    assert row.rstrip().endswith("./scripts/ledger resume audit.1")
    ran = beside("resume", "audit.1", LEDGER_MASTER_KEY_FILE="/there/is/none")  # it takes the log alone
    assert (ran.returncode, ran.stderr) == (0, "audit.1 tries again within a second, once a server runs.\n")
    with driver.service.database.reading() as connection:
        assert parked_now(connection) == {}
    assert beside("status").returncode == 0
    ran = beside("resume", "audit.1")
    assert (ran.returncode, ran.stderr) == (1, "audit.1 is not parked.\n")


def test_a_ledger_that_is_not_there_has_no_status(ledger: Ledger):
    assert ledger("status").returncode == 3
