"""A tombstone that the log does not know of: at a start the log learns of it, and of no other."""

from uuid import uuid4

import pytest

from domain.events import Fact, UserErased
from domain.user import TOMBSTONE
from projections import tombstones
from projections.tombstones import EraseUsersOnTombstone
from tests.projections.driver import Driver


def test_who_has_a_tombstone_is_erased_in_a_log_that_knows_him_and_only_once(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tombstones, "LOOKED_UP_AT_ONCE", 3)
    people = [f"user-{number}" for number in range(7)]
    for user_id in [*people, "bob"]:
        driver.sign_in(user_id)
    driver.erase("user-0")
    for user_id in [*people, "never here"]:
        driver.service.keys.erase(driver.stream(user_id))
    rule = EraseUsersOnTombstone(driver.ledger, driver.service.database, driver.service.keys_database)
    correlation_id = uuid4()
    assert (rule.run(correlation_id), rule.run(uuid4())) == (6, 0)
    erased = driver.facts(UserErased)[1:]
    assert {fact.originator_id for fact in erased} == {driver.stream(user_id) for user_id in people[1:]}
    assert {(fact.actor, fact.correlation_id) for fact in erased} == {(TOMBSTONE, correlation_id)}
    assert driver.stream("never here") not in {fact.originator_id for fact in driver.facts(Fact)}
    assert len(driver.active("bob")) == 1
