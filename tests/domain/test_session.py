"""How long a session may live: up to the earlier of two limits, and never at it (SES-06, SES-07, SES-08)."""

import pytest

from domain.events import EndReason
from domain.session import End, Limits, Session, Timeouts, deadline
from tests.domain.story import PHONE, moment

TIMEOUTS = Timeouts(idle=100, absolute=1000)


def test_an_idle_session_ends_by_inactivity():
    assert deadline(moment(0), moment(50), TIMEOUTS) == End(moment(150), EndReason.INACTIVITY_TIMEOUT)


def test_activity_never_moves_the_absolute_limit():
    assert deadline(moment(0), moment(950), TIMEOUTS) == End(moment(1000), EndReason.ABSOLUTE_TIMEOUT)


def test_when_both_limits_fall_together_the_absolute_one_is_the_reason():
    assert deadline(moment(0), moment(900), TIMEOUTS) == End(moment(1000), EndReason.ABSOLUTE_TIMEOUT)


@pytest.mark.parametrize(("now", "is_live"), [(149, True), (149.999999, True), (150, False), (151, False)])
def test_a_session_is_live_strictly_before_its_deadline(now: float, is_live: bool):
    session = Session(PHONE, 2, created_at=moment(0), last_active_at=moment(50), timeouts=TIMEOUTS)
    assert session.deadline == End(moment(150), EndReason.INACTIVITY_TIMEOUT)
    assert session.is_live(moment(now)) is is_live


def test_a_remembered_session_has_timeouts_of_its_own():
    limits = Limits(normal=Timeouts(1, 2), remembered=Timeouts(3, 4))
    assert limits.timeouts(remember_me=False) == Timeouts(1, 2)
    assert limits.timeouts(remember_me=True) == Timeouts(3, 4)


def test_the_defaults_are_half_an_hour_and_half_a_day_or_two_weeks_and_thirty_days():
    assert Limits() == Limits(
        normal=Timeouts(idle=1_800, absolute=43_200),
        remembered=Timeouts(idle=1_209_600, absolute=2_592_000),
        touch_interval=60,
        max_sessions=50,
    )
