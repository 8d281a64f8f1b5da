"""Who was signed in at a moment: given a history, when asked about a moment, then what was, and how it ended since."""

from datetime import datetime, timedelta
from uuid import uuid4

import pytest

from domain.events import EndReason
from domain.ledger import Request
from projections.as_of import NotYet, at_moment, at_position, sessions_as_of
from projections.session_views import SessionView
from tests.clock import NOON, ManualClock
from tests.projections.driver import ACTOR, Driver


def at(driver: Driver, moment: datetime, user: str = "alice") -> list[SessionView]:
    service = driver.service
    with service.database.reading() as connection:
        then = at_moment(connection, moment, service.clock.now())
        return sessions_as_of(connection, service.mapper, driver.stream(user), user, then, service.clock.now())


def ends(driver: Driver, moment: datetime) -> list[tuple]:
    return [(v.session_id, v.end and (v.end.at, v.end.reason), v.ended_by) for v in at(driver, moment)]


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_before_he_signed_in_there_is_nothing(driver: Driver, clock: ManualClock):
    clock.advance(10)
    driver.sign_in()
    assert at(driver, after(9.999_999)) == []
    assert at(driver, after(-10_000)) == []
    assert len(at(driver, after(10))) == 1
    assert at(driver, after(10), "somebody else") == []


def test_it_is_as_it_was_then_and_ended_as_it_has_since(driver: Driver, clock: ManualClock):
    session_id = driver.sign_in()
    clock.advance(600)
    driver.touch(session_id)
    clock.advance(600)
    driver.revoke(session_id, EndReason.SIGNED_OUT, actor="self")
    [view] = at(driver, after(599))
    assert (view.last_active_at, view.expires_at) == (NOON, after(1800))
    assert (view.end, view.ended_by) == ((after(1200), EndReason.SIGNED_OUT), "self")
    [view] = at(driver, after(600))
    assert (view.last_active_at, view.expires_at) == (after(600), after(2400))
    assert at(driver, after(1200)) == []


def test_what_lives_has_no_end_and_what_time_has_ended_has_one_unrecorded(driver: Driver, clock: ManualClock):
    session_id = driver.sign_in()
    clock.advance(1799)
    assert ends(driver, NOON) == [(session_id, None, None)]
    clock.advance(1)
    by_time = [(session_id, (after(1800), EndReason.INACTIVITY_TIMEOUT), "policy:end-sessions-on-timeout")]
    assert ends(driver, NOON) == ends(driver, after(1799)) == by_time
    assert at(driver, after(1800)) == []
    driver.service.sweeper.sweep()
    assert ends(driver, NOON) == ends(driver, after(1799)) == by_time
    assert at(driver, after(1800)) == []


@pytest.mark.parametrize("recorded", [False, True])
def test_a_disable_is_seen_whether_its_ends_are_recorded_or_not(driver: Driver, clock: ManualClock, recorded: bool):
    session_id = driver.sign_in()
    clock.advance(10)
    driver.disable()
    if recorded:
        driver.enable()
    clock.advance(10)
    assert ends(driver, after(9)) == [
        (session_id, (after(10), EndReason.USER_DISABLED), "policy:revoke-sessions-on-user-disabled")
    ]
    assert at(driver, after(10)) == []


@pytest.mark.parametrize("recorded", [False, True])
def test_signing_everybody_out_is_seen_whether_its_ends_are_recorded_or_not(
    driver: Driver, clock: ManualClock, recorded: bool
):
    session_id = driver.sign_in()
    clock.advance(10)
    driver.ledger.invalidate_sessions(None, EndReason.REVOKE_ALL, Request(ACTOR, uuid4())).result(20)
    if recorded:
        driver.service.sweeper.sweep()
    clock.advance(10)
    later = driver.sign_in()
    assert ends(driver, after(9)) == [
        (session_id, (after(10), EndReason.REVOKE_ALL), "policy:end-sessions-on-sessions-invalidated")
    ]
    assert at(driver, after(10)) == []
    assert ends(driver, after(20)) == [(later, None, None)]


def test_a_position_is_the_moment_at_which_its_event_was_recorded(driver: Driver, clock: ManualClock):
    driver.sign_in()
    clock.advance(5)
    driver.sign_in("bob")
    with driver.service.database.reading() as connection:
        assert at_position(connection, 2) == (2, NOON)
        assert at_position(connection, 3) == (3, after(5))
        assert at_moment(connection, after(4), after(5)) == (2, after(4))
        assert at_moment(connection, after(5), after(5)) == (4, after(5))
        assert at_moment(connection, after(-1), after(5)) == (0, after(-1))


def test_what_has_not_come_yet_is_not_told(driver: Driver):
    driver.sign_in()
    with driver.service.database.reading() as connection:
        for position in (0, -1, 3):
            with pytest.raises(NotYet, match=f"The log has no position {position}: it ends at 2"):
                at_position(connection, position)
        with pytest.raises(NotYet, match="has not come yet"):
            at_moment(connection, after(1), NOON)
