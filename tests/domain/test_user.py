"""The decisions of `User`: given a history, when a decision is asked for, then these facts."""

from collections.abc import Callable
from typing import Any

import pytest

from domain.errors import UserDisabled as UserIsDisabled
from domain.errors import UserErased as UserIsErased
from domain.events import EndReason
from domain.session import Limits, Session, Timeouts
from domain.user import DISABLED, User
from tests.domain.story import (
    ABSOLUTE,
    ALICE,
    CLIENT,
    DAY,
    HOUR,
    IDLE,
    LAPTOP,
    LIMITS,
    MINUTE,
    PHONE,
    TABLET,
    WATCH,
    context,
    created,
    cut_off,
    disabled,
    emitted,
    enabled,
    ended,
    enrolled,
    erased,
    event_id,
    given,
    moment,
    numbered,
    sign_in,
    then,
    timed_out,
    touched,
    when,
)

SIGNED_IN = [enrolled(), created(PHONE)]
IS_DISABLED = [enrolled(), created(PHONE), created(LAPTOP, at=10), disabled(at=100)]
THE_DISABLE = event_id(4)

Decision = Callable[[User], Any]


def create(session_id, limits: Limits = LIMITS, **told: Any) -> Decision:
    return lambda user: user.create_session(sign_in(session_id, **told), limits)


def touch(session_id) -> Decision:
    return lambda user: user.touch_session(session_id, LIMITS)


def revoke(session_id, reason: EndReason = EndReason.REVOKED_BY_USER) -> Decision:
    return lambda user: user.revoke_session(session_id, reason)


def revoke_all(keep=None) -> Decision:
    return lambda user: user.revoke_all_sessions(EndReason.REVOKE_ALL, keep=keep)


def capped(max_sessions: int) -> Limits:
    return Limits(max_sessions=max_sessions)


# -- signing in


def test_a_first_sign_in_enrols_the_user_and_begins_the_session():
    user = User.enrol(ALICE, "alice", context(0, version=0))
    user.create_session(sign_in(PHONE), LIMITS)
    assert emitted(user) == numbered([enrolled(), created(PHONE)])


def test_a_sign_in_is_recorded_with_all_that_was_told():
    told = {
        "device": "Safari on iPhone",
        "client": CLIENT,
        "idp_name": "okta",
        "auth_time": moment(-5),
        "amr": ("pwd", "otp"),
    }
    history = [enrolled()]
    session = Session(PHONE, 2, moment(7), moment(7), Timeouts(IDLE, ABSOLUTE))
    assert when(history, create(PHONE, **told), at=7) == (session, then(history, created(PHONE, at=7, **told)))


def test_a_remembered_sign_in_gets_the_longer_timeouts():
    history = [enrolled()]
    _, facts = when(history, create(PHONE, remember_me=True), at=0)
    assert facts == then(history, created(PHONE, remember_me=True, idle=14 * DAY, absolute=30 * DAY))


def test_the_timeouts_of_the_moment_are_frozen_into_the_session():
    history = [enrolled()]
    _, facts = when(history, create(PHONE, Limits(normal=Timeouts(idle=600, absolute=3600))), at=0)
    assert facts == then(history, created(PHONE, idle=600, absolute=3600))


def test_a_session_ends_by_its_own_timeouts_whatever_is_set_now():
    history = [enrolled(), created(PHONE, idle=600, absolute=3600)]
    _, facts = when(history, create(LAPTOP, LIMITS), at=600)
    assert facts == then(history, timed_out(PHONE, at=600, ended_at=600), created(LAPTOP, at=600))


def test_a_sign_in_ends_the_session_that_it_replaces():
    _, facts = when(SIGNED_IN, create(LAPTOP, replaces=PHONE), at=5)
    assert facts == then(SIGNED_IN, ended(PHONE, EndReason.REPLACED, at=5), created(LAPTOP, at=5))


@pytest.mark.parametrize("replaces", [PHONE, WATCH], ids=["ended", "unknown"])
def test_replacing_a_session_that_is_not_there_is_a_plain_sign_in(replaces):
    history = [*SIGNED_IN, ended(PHONE, EndReason.SIGNED_OUT, at=3)]
    _, facts = when(history, create(LAPTOP, replaces=replaces), at=5)
    assert facts == then(history, created(LAPTOP, at=5))


def test_a_replaced_session_that_time_has_ended_keeps_that_reason():
    _, facts = when(SIGNED_IN, create(LAPTOP, replaces=PHONE), at=IDLE)
    assert facts == then(SIGNED_IN, timed_out(PHONE, at=IDLE, ended_at=IDLE), created(LAPTOP, at=IDLE))


# -- the cap


THREE = [enrolled(), created(PHONE, at=0), created(LAPTOP, at=60), created(TABLET, at=120), touched(PHONE, at=180)]


@pytest.mark.parametrize("cap", [4, 5, 6, 50])
def test_below_the_cap_nobody_is_evicted(cap: int):
    _, facts = when(THREE, create(WATCH, capped(cap)), at=200)
    assert facts == then(THREE, created(WATCH, at=200))


def test_at_the_cap_the_least_recently_active_is_evicted():
    _, facts = when(THREE, create(WATCH, capped(3)), at=200)
    assert facts == then(THREE, ended(LAPTOP, EndReason.SESSION_LIMIT, at=200), created(WATCH, at=200))


def test_of_sessions_equally_active_the_older_is_evicted():
    history = [enrolled(), created(LAPTOP), created(PHONE)]
    _, facts = when(history, create(WATCH, capped(2)), at=9)
    assert facts == then(history, ended(LAPTOP, EndReason.SESSION_LIMIT, at=9), created(WATCH, at=9))


def test_a_smaller_cap_evicts_several_the_least_recently_active_first():
    _, facts = when(THREE, create(WATCH, capped(1)), at=200)
    evicted = [ended(session_id, EndReason.SESSION_LIMIT, at=200) for session_id in (LAPTOP, TABLET, PHONE)]
    assert facts == then(THREE, *evicted, created(WATCH, at=200))


def test_a_session_that_time_has_ended_takes_no_place():
    history = [enrolled(), created(PHONE, at=0), created(LAPTOP, at=60)]
    _, facts = when(history, create(WATCH, capped(2)), at=IDLE)
    assert facts == then(history, timed_out(PHONE, at=IDLE, ended_at=IDLE), created(WATCH, at=IDLE))


def test_a_replaced_session_gives_its_place_to_the_new_one():
    _, facts = when(THREE, create(WATCH, capped(3), replaces=TABLET), at=200)
    assert facts == then(THREE, ended(TABLET, EndReason.REPLACED, at=200), created(WATCH, at=200))


# -- touching


def test_a_use_at_the_touch_interval_is_recorded():
    assert when(SIGNED_IN, touch(PHONE), at=60) == (True, then(SIGNED_IN, touched(PHONE, at=60)))


def test_a_use_within_the_touch_interval_records_nothing():
    assert when(SIGNED_IN, touch(PHONE), at=59.999999) == (True, [])


def test_the_touch_interval_runs_from_the_last_recorded_use():
    history = [*SIGNED_IN, touched(PHONE, at=100)]
    assert when(history, touch(PHONE), at=159) == (True, [])
    assert when(history, touch(PHONE), at=160) == (True, then(history, touched(PHONE, at=160)))


def test_the_touch_interval_is_at_most_a_quarter_of_an_idle_limit_frozen_under_other_settings():
    history = [enrolled(), created(PHONE, idle=40)]
    assert when(history, touch(PHONE), at=9.999999) == (True, [])
    assert when(history, touch(PHONE), at=10) == (True, then(history, touched(PHONE, at=10)))


def test_a_touch_interval_of_nothing_records_every_use():
    answer, facts = when(SIGNED_IN, lambda user: user.touch_session(PHONE, Limits(touch_interval=0)), at=0)
    assert (answer, facts) == (True, then(SIGNED_IN, touched(PHONE, at=0)))


def test_a_use_after_days_is_recorded():
    history = [enrolled(), created(PHONE, remember_me=True, idle=14 * DAY, absolute=30 * DAY)]
    assert when(history, touch(PHONE), at=2 * DAY + 1) == (True, then(history, touched(PHONE, at=2 * DAY + 1)))


def test_a_use_moves_no_other_session():
    history = [enrolled(), created(PHONE), created(LAPTOP), touched(LAPTOP, at=IDLE - 1)]
    _, facts = when(history, touch(LAPTOP), at=IDLE)
    assert facts == then(history, timed_out(PHONE, at=IDLE, ended_at=IDLE))


def test_a_session_that_was_never_there_cannot_be_touched():
    assert when(SIGNED_IN, touch(WATCH), at=60) == (False, [])


# -- the limits of time


def test_a_second_before_the_idle_limit_a_session_lives():
    assert when(SIGNED_IN, touch(PHONE), at=IDLE - 1) == (True, then(SIGNED_IN, touched(PHONE, at=IDLE - 1)))


def test_at_the_idle_limit_it_has_ended():
    assert when(SIGNED_IN, touch(PHONE), at=IDLE) == (
        False,
        then(SIGNED_IN, timed_out(PHONE, at=IDLE, ended_at=IDLE)),
    )


def test_activity_every_minute_never_crosses_the_absolute_limit():
    user = given(SIGNED_IN)
    for at in range(MINUTE, ABSOLUTE, MINUTE):
        assert user.acting(context(at, user.version)).touch_session(PHONE, LIMITS)
    assert len(emitted(user)) == ABSOLUTE // MINUTE - 1

    version = user.version
    assert not user.acting(context(ABSOLUTE, version)).touch_session(PHONE, LIMITS)
    end = timed_out(PHONE, at=ABSOLUTE, ended_at=ABSOLUTE, reason=EndReason.ABSOLUTE_TIMEOUT)
    assert emitted(user) == numbered([end], first=version + 1)


def test_a_second_before_the_absolute_limit_it_lives():
    history = [*SIGNED_IN, touched(PHONE, at=ABSOLUTE - 2)]
    assert when(history, touch(PHONE), at=ABSOLUTE - 1) == (True, [])


def test_an_end_by_time_is_recorded_late_with_the_moment_of_the_deadline():
    answer, facts = when(SIGNED_IN, User.settle, at=3 * HOUR, by="self")
    assert (answer, facts) == (1, then(SIGNED_IN, timed_out(PHONE, at=3 * HOUR, ended_at=IDLE)))


def test_a_late_record_tells_which_limit_came_first():
    history = [enrolled(), created(PHONE, idle=500, absolute=1000), touched(PHONE, at=400), touched(PHONE, at=800)]
    _, facts = when(history, User.settle, at=DAY)
    assert facts == then(history, timed_out(PHONE, at=DAY, ended_at=1000, reason=EndReason.ABSOLUTE_TIMEOUT))


def test_settling_again_records_nothing():
    history = [*SIGNED_IN, timed_out(PHONE, at=IDLE, ended_at=IDLE)]
    assert when(history, User.settle, at=DAY) == (0, [])


ONE_HAS_EXPIRED = [enrolled(), created(PHONE), created(LAPTOP, at=1000)]
BY_THE_WAY = timed_out(PHONE, at=2000, ended_at=IDLE)


@pytest.mark.parametrize(
    ("decide", "afterwards"),
    [
        pytest.param(create(TABLET), [created(TABLET, at=2000)], id="create"),
        pytest.param(touch(LAPTOP), [touched(LAPTOP, at=2000)], id="touch"),
        pytest.param(touch(PHONE), [], id="touch the expired one"),
        pytest.param(revoke(LAPTOP), [ended(LAPTOP, EndReason.REVOKED_BY_USER, at=2000)], id="revoke"),
        pytest.param(revoke(PHONE), [], id="revoke the expired one"),
        pytest.param(revoke_all(), [ended(LAPTOP, EndReason.REVOKE_ALL, at=2000)], id="revoke all"),
        pytest.param(revoke_all(keep=PHONE), [ended(LAPTOP, EndReason.REVOKE_ALL, at=2000)], id="keep the expired one"),
        pytest.param(User.disable, [disabled(at=2000)], id="disable"),
        pytest.param(User.settle, [], id="settle"),
    ],
)
def test_every_decision_first_records_what_time_has_ended(decide: Decision, afterwards: list):
    _, facts = when(ONE_HAS_EXPIRED, decide, at=2000)
    assert facts == then(ONE_HAS_EXPIRED, BY_THE_WAY, *afterwards)


# -- revoking


@pytest.mark.parametrize("reason", [EndReason.REVOKED_BY_USER, EndReason.REVOKED_BY_ADMIN, EndReason.SIGNED_OUT])
def test_a_revocation_tells_who_and_why(reason: EndReason):
    answer, facts = when(SIGNED_IN, revoke(PHONE, reason), at=30, by="user:somebody", cause=event_id(9))
    told = ended(PHONE, reason, at=30, by="user:somebody", cause=event_id(9))
    assert (answer, facts) == (True, then(SIGNED_IN, told))


def test_revoking_again_records_nothing():
    history = [*SIGNED_IN, ended(PHONE, EndReason.REVOKED_BY_USER, at=30)]
    assert when(history, revoke(PHONE), at=31) == (False, [])


def test_a_session_that_is_not_his_is_not_there_to_revoke():
    assert when(SIGNED_IN, revoke(WATCH), at=30) == (False, [])


def test_a_revoked_session_cannot_be_touched():
    history = [*SIGNED_IN, ended(PHONE, EndReason.REVOKED_BY_USER, at=30)]
    assert when(history, touch(PHONE), at=100) == (False, [])


def test_revoking_all_ends_every_session():
    answer, facts = when(THREE, revoke_all(), at=200)
    ends = [ended(session_id, EndReason.REVOKE_ALL, at=200) for session_id in (PHONE, LAPTOP, TABLET)]
    assert (answer, facts) == (3, then(THREE, *ends))


def test_revoking_all_may_keep_one():
    answer, facts = when(THREE, revoke_all(keep=LAPTOP), at=200)
    ends = [ended(session_id, EndReason.REVOKE_ALL, at=200) for session_id in (PHONE, TABLET)]
    assert (answer, facts) == (2, then(THREE, *ends))


def test_keeping_a_session_that_is_not_his_keeps_nothing():
    answer, _ = when(THREE, revoke_all(keep=WATCH), at=200)
    assert answer == 3


def test_revoking_all_of_nothing_records_nothing():
    assert when([enrolled()], revoke_all(), at=200) == (0, [])


# -- disabling and enabling


def test_disabling_is_one_fact_and_leaves_the_ends_to_the_policy():
    assert when(SIGNED_IN, User.disable, at=100) == (True, then(SIGNED_IN, disabled(at=100)))


def test_disabling_twice_records_nothing():
    assert when(IS_DISABLED, User.disable, at=200) == (False, [])


def test_a_disabled_user_is_refused_and_nothing_is_recorded():
    user = given(IS_DISABLED)
    before = user.state()
    with pytest.raises(UserIsDisabled):
        user.acting(context(DAY, user.version)).create_session(sign_in(TABLET, replaces=PHONE), capped(1))
    assert emitted(user) == []
    assert user.state() == before


@pytest.mark.parametrize("at", [101, DAY], ids=["at once", "past every timeout"])
@pytest.mark.parametrize(
    "decide", [touch(PHONE), revoke(PHONE), revoke_all(), User.settle], ids=["touch", "revoke", "revoke all", "settle"]
)
def test_a_disabled_user_has_no_session_left_to_act_on(decide: Decision, at: float):
    answer, facts = when(IS_DISABLED, decide, at=at)
    assert (bool(answer), facts) == (False, [])


def test_the_ends_that_a_disable_brought_are_recorded_at_its_moment_and_with_its_cause():
    answer, facts = when(IS_DISABLED, User.revoke_disabled_sessions, at=105, by=DISABLED, cause=THE_DISABLE)
    ends = [cut_off(session_id, at=105, disabled_at=100, cause=THE_DISABLE) for session_id in (PHONE, LAPTOP)]
    assert (answer, facts) == (2, then(IS_DISABLED, *ends))


def test_a_disable_ends_a_session_before_its_timeouts_do_however_late_that_is_recorded():
    _, facts = when(IS_DISABLED, User.revoke_disabled_sessions, at=DAY)
    assert {(fact.reason, fact.ended_at) for fact in facts} == {(EndReason.USER_DISABLED, moment(100))}


def test_the_ends_that_a_disable_brought_are_recorded_once():
    ends = [cut_off(session_id, at=105, disabled_at=100, cause=THE_DISABLE) for session_id in (PHONE, LAPTOP)]
    assert when([*IS_DISABLED, *ends], User.revoke_disabled_sessions, at=106) == (0, [])


def test_only_sessions_from_before_that_version_are_ended():
    answer, facts = when(IS_DISABLED, lambda user: user.revoke_disabled_sessions(created_before=3), at=105)
    assert (answer, facts) == (1, then(IS_DISABLED, cut_off(PHONE, at=105, disabled_at=100, cause=THE_DISABLE)))


def test_an_enabled_user_has_no_ends_of_a_disable_to_record():
    assert when(SIGNED_IN, lambda user: user.revoke_disabled_sessions(9), at=105) == (0, [])


def test_enabling_first_records_what_the_disable_ended():
    answer, facts = when(IS_DISABLED, User.enable, at=300)
    ends = [cut_off(session_id, at=300, disabled_at=100, cause=THE_DISABLE) for session_id in (PHONE, LAPTOP)]
    assert (answer, facts) == (True, then(IS_DISABLED, *ends, enabled(at=300)))


def test_enabling_revives_nothing():
    _, facts = when(IS_DISABLED, User.enable, at=101)
    assert when([*IS_DISABLED, *facts], touch(PHONE), at=102) == (False, [])


def test_enabling_twice_records_nothing():
    assert when([*IS_DISABLED, enabled(at=300)], User.enable, at=301) == (False, [])


def test_enabling_one_who_never_was_disabled_records_nothing():
    assert when(SIGNED_IN, User.enable, at=301) == (False, [])


def test_an_enabled_user_may_sign_in_again():
    history = [enrolled(), disabled(at=100), enabled(at=200)]
    _, facts = when(history, create(PHONE), at=300)
    assert facts == then(history, created(PHONE, at=300))


def test_a_second_disable_is_the_one_in_force():
    history = [enrolled(), disabled(at=10), enabled(at=20), created(PHONE, at=30), disabled(at=40)]
    _, facts = when(history, User.enable, at=50)
    end = cut_off(PHONE, at=50, disabled_at=40, cause=event_id(5))
    assert facts == then(history, end, enabled(at=50))


# -- erasing


IS_ERASED = [*SIGNED_IN, erased(at=100), ended(PHONE, EndReason.USER_ERASED, at=100, cause=event_id(3))]


def test_erasing_is_one_fact_and_the_ends_that_it_brings():
    answer, facts = when(THREE, User.erase, at=200)
    ends = [
        ended(session_id, EndReason.USER_ERASED, at=200, cause=event_id(len(THREE) + 1))
        for session_id in (PHONE, LAPTOP, TABLET)
    ]
    assert (answer, facts) == (True, then(THREE, erased(at=200), *ends))


def test_erasing_again_records_nothing():
    assert when(IS_ERASED, User.erase, at=200) == (False, [])


def test_what_time_had_ended_is_recorded_as_it_ended():
    _, facts = when(SIGNED_IN, User.erase, at=DAY)
    assert facts == then(SIGNED_IN, timed_out(PHONE, at=DAY, ended_at=IDLE), erased(at=DAY))


def test_what_a_disable_had_cut_off_is_recorded_as_it_ended():
    _, facts = when(IS_DISABLED, User.erase, at=200)
    ends = [cut_off(session_id, at=200, disabled_at=100, cause=THE_DISABLE) for session_id in (PHONE, LAPTOP)]
    assert facts == then(IS_DISABLED, *ends, erased(at=200))


@pytest.mark.parametrize("decide", [create(TABLET), User.disable, User.enable], ids=["sign in", "disable", "enable"])
def test_what_can_not_be_wished_of_an_erased_user_is_refused(decide: Decision):
    user = given(IS_ERASED)
    with pytest.raises(UserIsErased):
        decide(user.acting(context(200, user.version)))
    assert emitted(user) == []


@pytest.mark.parametrize(
    ("decide", "answer"),
    [(touch(PHONE), False), (revoke(PHONE), False), (revoke_all(), 0), (User.settle, 0)],
    ids=["touch", "revoke", "revoke all", "settle"],
)
def test_an_erased_user_has_no_session_left_to_act_on(decide: Decision, answer: Any):
    assert when(IS_ERASED, decide, at=150) == (answer, [])


# -- a clock that runs backwards


def test_time_never_runs_backwards_within_a_stream():
    history = [*SIGNED_IN, touched(PHONE, at=1000)]
    _, facts = when(history, revoke(PHONE), at=400)
    assert facts == then(history, ended(PHONE, EndReason.REVOKED_BY_USER, at=1000))


def test_what_time_has_ended_stays_ended_when_the_clock_steps_back():
    history = [*SIGNED_IN, created(LAPTOP, at=IDLE)]
    _, facts = when(history, touch(PHONE), at=IDLE - 60)
    assert facts == then(history, timed_out(PHONE, at=IDLE, ended_at=IDLE))


def test_a_use_before_the_last_one_records_nothing():
    history = [*SIGNED_IN, touched(PHONE, at=1000)]
    assert when(history, touch(PHONE), at=400) == (True, [])
