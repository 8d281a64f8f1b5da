"""The rules: the command that each gives, and its silences."""

from collections.abc import Callable
from concurrent.futures import Future
from uuid import UUID

import pytest

from domain.errors import StoreUnavailable
from domain.events import EndReason
from domain.ledger import Recorded, Request, SessionLedger
from domain.policies import (
    DestroyKeyOnUserErased,
    EndSessionsOnTimeout,
    Policy,
    RevokeSessionsOnRevocationRequested,
    RevokeSessionsOnUserDisabled,
)
from domain.user import DISABLED, EXPIRY
from tests.domain.direct_writer import DirectWriter, new_ledger
from tests.domain.story import (
    GATEWAY,
    IDLE,
    LAPTOP,
    NOON,
    PHONE,
    REQUEST,
    TABLET,
    created,
    cut_off,
    disabled,
    enabled,
    enrolled,
    event_id,
    numbered,
    sign_in,
    stream_of,
    timed_out,
)

ASKED = Request(GATEWAY, REQUEST)
ALICE, BOB = stream_of("alice"), stream_of("bob")

Door = tuple[SessionLedger, DirectWriter]


@pytest.fixture
def door() -> Door:
    return new_ledger()


class Following:
    """Brings a policy what it answers, from the log as it is stored; `again` begins at the first event once more."""

    def __init__(self, ledger: SessionLedger, policy: Policy) -> None:
        self._ledger, self._policy = ledger, policy
        self._position = 0

    def catch_up(self) -> list[int]:
        """What each of the policy's answers recorded."""
        log = self._ledger.recorder.select_notifications(self._position or None, 1000, inclusive_of_start=False)
        self._position = log[-1].id if log else self._position
        answered = [n for n in log if n.topic in self._policy.topics]
        return [self._policy.handle(self._ledger.mapper.to_domain_event(n)).result().result for n in answered]

    def again(self) -> list[int]:
        self._position = 0
        return self.catch_up()


def following(ledger: SessionLedger) -> Following:
    return Following(ledger, RevokeSessionsOnUserDisabled(ledger))


# -- RevokeSessionsOnUserDisabled


def test_when_a_user_is_disabled_the_end_of_each_of_his_sessions_is_recorded(door: Door):
    ledger, writer = door
    ledger.create_session("alice", sign_in(PHONE), ASKED)
    ledger.create_session("alice", sign_in(LAPTOP), ASKED)
    writer.now = 100
    ledger.disable_user("alice", ASKED)
    writer.now = 101
    assert following(ledger).catch_up() == [2]
    ends = [cut_off(session_id, at=101, disabled_at=100, cause=event_id(4)) for session_id in (PHONE, LAPTOP)]
    assert writer.facts == numbered([enrolled(), created(PHONE), created(LAPTOP), disabled(at=100), *ends])


def test_its_command_names_the_policy_the_request_and_the_fact_that_it_answers(door: Door):
    ledger, writer = door
    ledger.disable_user("alice", Request("user:admin", correlation_id=event_id(77)))
    following(ledger).catch_up()
    command = writer.commands[-1]
    assert command.stream == ALICE
    assert command.request == Request(DISABLED, correlation_id=event_id(77), causation_id=event_id(2))


def test_it_answers_nothing_but_a_disable(door: Door):
    ledger, writer = door
    ledger.create_session("alice", sign_in(PHONE), ASKED)
    writer.now = 60
    ledger.touch_session(ALICE, PHONE, ASKED)
    ledger.sign_out(ALICE, PHONE, ASKED)
    ledger.disable_user("alice", ASKED)
    ledger.enable_user("alice", ASKED)
    policy = following(ledger)
    asked_before = len(writer.commands)
    assert policy.catch_up() == [0]
    assert len(writer.commands) == asked_before + 1


def test_a_disable_told_twice_is_recorded_once(door: Door):
    ledger, writer = door
    ledger.create_session("alice", sign_in(PHONE), ASKED)
    ledger.disable_user("alice", ASKED)
    policy = following(ledger)
    assert policy.catch_up() == [1]
    recorded = list(writer.facts)
    assert policy.again() == [0]
    assert writer.facts == recorded


def test_when_the_user_is_enabled_before_it_answers_it_has_nothing_to_say(door: Door):
    ledger, writer = door
    ledger.create_session("alice", sign_in(PHONE), ASKED)
    ledger.disable_user("alice", ASKED)
    ledger.enable_user("alice", ASKED)
    ledger.create_session("alice", sign_in(LAPTOP), ASKED)
    assert following(ledger).catch_up() == [0]
    end = cut_off(PHONE, at=0, disabled_at=0, cause=event_id(3))
    history = [enrolled(), created(PHONE), disabled(at=0), end, enabled(at=0), created(LAPTOP)]
    assert writer.facts == numbered(history)


def test_a_late_answer_to_an_earlier_disable_leaves_later_sessions_to_the_later_one(door: Door):
    ledger, writer = door
    ledger.disable_user("alice", ASKED)
    ledger.enable_user("alice", ASKED)
    ledger.create_session("alice", sign_in(PHONE), ASKED)
    ledger.disable_user("alice", ASKED)
    assert following(ledger).catch_up() == [0, 1]
    end = cut_off(PHONE, at=0, disabled_at=0, cause=event_id(5))
    history = [enrolled(), disabled(at=0), enabled(at=0), created(PHONE), disabled(at=0), end]
    assert writer.facts == numbered(history)


def test_somebody_elses_sessions_stay(door: Door):
    ledger, writer = door
    ledger.create_session("alice", sign_in(PHONE), ASKED)
    ledger.create_session("bob", sign_in(LAPTOP), ASKED)
    ledger.disable_user("alice", ASKED)
    assert following(ledger).catch_up() == [1]
    assert [fact.TOPIC for fact in writer.facts if fact.originator_id == BOB] == ["UserEnrolled", "SessionCreated"]
    assert ledger.touch_session(BOB, LAPTOP, ASKED).result().result is True


def test_a_disabled_user_without_sessions_needs_nothing_recorded(door: Door):
    ledger, writer = door
    ledger.disable_user("alice", ASKED)
    assert following(ledger).catch_up() == [0]
    assert writer.facts == numbered([enrolled(), disabled(at=0)])


def test_an_answer_that_could_not_be_recorded_says_so(door: Door, monkeypatch: pytest.MonkeyPatch):
    ledger, _ = door
    ledger.disable_user("alice", ASKED)
    monkeypatch.setattr(ledger, "save", refusing)
    with pytest.raises(StoreUnavailable):
        following(ledger).catch_up()


def test_a_job_that_is_under_way_cannot_be_taken_back(door: Door, monkeypatch: pytest.MonkeyPatch):
    ledger, _ = door
    recording: Future[Recorded[int]] = Future()
    monkeypatch.setattr(ledger, "revoke_sessions_before", lambda *_: recording)
    job = RevokeSessionsOnRevocationRequested(ledger).carry_out([ALICE], NOON, EndReason.REVOKED_BY_ADMIN, ASKED)
    assert not job.cancel()
    recording.set_result(Recorded(2, 7))
    assert job.result() == Recorded(2, 7)


def refusing(*_: object) -> None:
    raise StoreUnavailable


# -- EndSessionsOnTimeout


def sweep(ledger: SessionLedger, *streams: UUID, correlation_id: UUID = REQUEST) -> int:
    ending = EndSessionsOnTimeout(ledger).end(list(streams), correlation_id)
    assert list(ending) == list(streams)
    return sum(future.result().result for future in ending.values())


def test_a_sweep_records_the_ends_that_time_brought(door: Door):
    ledger, writer = door
    ledger.create_session("alice", sign_in(PHONE), ASKED)
    ledger.create_session("alice", sign_in(LAPTOP, remember_me=True), ASKED)
    ledger.create_session("bob", sign_in(TABLET), ASKED)
    before = len(writer.facts)
    writer.now = IDLE + 30
    assert sweep(ledger, ALICE, BOB) == 2
    end_of_alices = timed_out(PHONE, at=IDLE + 30, ended_at=IDLE)
    end_of_bobs = timed_out(TABLET, at=IDLE + 30, ended_at=IDLE, stream=BOB)
    assert writer.facts[before:] == [*numbered([end_of_alices], first=4), *numbered([end_of_bobs], first=3)]


def test_the_sweeps_command_names_the_policy_and_the_sweep(door: Door):
    ledger, writer = door
    sweep(ledger, ALICE, correlation_id=event_id(77))
    assert [(c.stream, c.request) for c in writer.commands] == [(ALICE, Request(EXPIRY, event_id(77)))]


def test_a_second_sweep_has_nothing_to_record(door: Door):
    ledger, writer = door
    ledger.create_session("alice", sign_in(PHONE), ASKED)
    writer.now = IDLE
    assert [sweep(ledger, ALICE), sweep(ledger, ALICE)] == [1, 0]
    assert len(writer.facts) == 3


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(lambda ledger: ledger.create_session("alice", sign_in(PHONE, remember_me=True), ASKED), id="live"),
        pytest.param(lambda ledger: ledger.enrol_user("alice", ASKED), id="without sessions"),
        pytest.param(lambda ledger: None, id="never heard of"),
    ],
)
def test_a_sweep_leaves_others_alone(door: Door, prepare: Callable[[SessionLedger], object]):
    ledger, writer = door
    prepare(ledger)
    before = list(writer.facts)
    writer.now = IDLE
    assert sweep(ledger, ALICE) == 0
    assert writer.facts == before


def test_a_sweep_leaves_a_disabled_users_sessions_to_the_disable(door: Door):
    ledger, writer = door
    ledger.create_session("alice", sign_in(PHONE), ASKED)
    ledger.disable_user("alice", ASKED)
    writer.now = IDLE
    assert sweep(ledger, ALICE) == 0
    assert following(ledger).catch_up() == [1]
    assert writer.facts[-1].reason == EndReason.USER_DISABLED


def test_a_sweep_of_nobody_asks_nothing(door: Door):
    ledger, writer = door
    assert sweep(ledger) == 0
    assert writer.commands == []


# -- names that the log and the tracking table keep


# -- DestroyKeyOnUserErased


def test_when_a_user_is_erased_his_key_is_destroyed_and_nobody_elses(door: Door):
    ledger, writer = door
    for user_id in ("alice", "bob"):
        ledger.create_session(user_id, sign_in(PHONE), ASKED)
        ledger.disable_user(user_id, ASKED)
    ledger.erase_user("bob", ASKED)
    destroyed: list[UUID] = []
    policy = Following(ledger, DestroyKeyOnUserErased(destroyed.append))
    asked_before = len(writer.commands)
    policy.catch_up()
    assert destroyed == [BOB]
    policy.again()
    assert destroyed == [BOB, BOB]
    assert len(writer.commands) == asked_before


def test_a_key_that_could_not_be_destroyed_is_asked_for_again(door: Door):
    ledger, _ = door
    ledger.erase_user("bob", ASKED)

    def fail(_: UUID) -> None:
        raise StoreUnavailable("the keys are away")

    with pytest.raises(StoreUnavailable):
        Following(ledger, DestroyKeyOnUserErased(fail)).catch_up()


def test_the_names_of_the_policies_stay():
    assert (RevokeSessionsOnUserDisabled.name, DISABLED) == (
        "revoke-sessions-on-user-disabled",
        "policy:revoke-sessions-on-user-disabled",
    )
    assert EXPIRY == "policy:end-sessions-on-timeout"
    assert DestroyKeyOnUserErased.name == "destroy-key-on-user-erased"
