"""`SessionLedger`, the only door: what each command records, and that it needs neither clock nor environment."""

from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime
from typing import Any, NoReturn

import eventsourcing.application
import eventsourcing.domain
import pytest

import domain.events
import domain.session
import domain.user
from domain.errors import UserDisabled as UserIsDisabled
from domain.errors import UserErased as UserIsErased
from domain.events import EndReason
from domain.ledger import Claim, Recorded, Request, SessionLedger
from domain.session import Limits, Session, Timeouts
from tests.domain.direct_writer import DirectWriter, new_ledger
from tests.domain.story import (
    ABSOLUTE,
    ALICE,
    CLIENT,
    GATEWAY,
    IDLE,
    LAPTOP,
    PHONE,
    REQUEST,
    TABLET,
    created,
    cut_off,
    disabled,
    enabled,
    ended,
    enrolled,
    erased,
    event_id,
    moment,
    numbered,
    sign_in,
    stream_of,
    timed_out,
    touched,
)

ASKED = Request(GATEWAY, REQUEST)
NOBODY = stream_of("nobody")


@pytest.fixture
def door() -> tuple[SessionLedger, DirectWriter]:
    return new_ledger()


def signed_in() -> tuple[SessionLedger, DirectWriter]:
    """Alice, with two sessions since noon."""
    ledger, writer = new_ledger()
    ledger.create_session("alice", sign_in(PHONE), ASKED)
    ledger.create_session("alice", sign_in(LAPTOP), ASKED)
    return ledger, writer


SIGNED_IN = [enrolled(), created(PHONE), created(LAPTOP)]


# -- what each command records


def test_a_sign_in_of_a_new_user_enrols_him(door):
    ledger, writer = door
    recorded = ledger.create_session("alice", sign_in(PHONE, client=CLIENT), ASKED).result()
    assert recorded == Recorded(Session(PHONE, 2, moment(0), moment(0), Timeouts(IDLE, ABSOLUTE)), position=2)
    assert writer.facts == numbered([enrolled("alice"), created(PHONE, client=CLIENT)])


def test_a_second_sign_in_does_not_enrol_again(door):
    ledger, writer = door
    ledger.create_session("alice", sign_in(PHONE), ASKED)
    ledger.create_session("alice", sign_in(LAPTOP), ASKED)
    assert writer.facts == numbered([enrolled(), created(PHONE), created(LAPTOP)])


def test_a_sign_in_is_held_to_the_ledgers_limits():
    ledger, writer = new_ledger(Limits(normal=Timeouts(idle=600, absolute=3600), max_sessions=1))
    ledger.create_session("alice", sign_in(PHONE), ASKED)
    ledger.create_session("alice", sign_in(LAPTOP), ASKED)
    short = {"idle": 600, "absolute": 3600}
    evicted = ended(PHONE, EndReason.SESSION_LIMIT, at=0)
    assert writer.facts == numbered([enrolled(), created(PHONE, **short), evicted, created(LAPTOP, **short)])


def test_a_sign_in_of_a_disabled_user_is_refused(door):
    ledger, writer = door
    ledger.disable_user("alice", ASKED)
    refused = ledger.create_session("alice", sign_in(PHONE), ASKED)
    assert isinstance(refused.exception(), UserIsDisabled)
    assert writer.facts == numbered([enrolled(), disabled(at=0)])


def test_an_idempotency_claim_goes_to_the_writer_with_the_command(door):
    ledger, writer = door
    claim = Claim(b"key", b"fingerprint", lambda session: b"answer")
    ledger.create_session("alice", sign_in(PHONE), ASKED, claim)
    ledger.create_session("alice", sign_in(LAPTOP), ASKED)
    assert [(command.stream, command.claim) for command in writer.commands] == [(ALICE, claim), (ALICE, None)]


def test_a_touch_is_coalesced_by_the_ledgers_interval():
    ledger, writer = new_ledger(Limits(touch_interval=10))
    ledger.create_session("alice", sign_in(PHONE), ASKED)
    answers = []
    for writer.now in (9, 10, 19):
        answers.append(ledger.touch_session(ALICE, PHONE, ASKED).result().result)
    assert answers == [True, True, True]
    assert writer.facts == numbered([enrolled(), created(PHONE), touched(PHONE, at=10)])


def test_revoking_ends_one_session_for_the_reason_given():
    ledger, writer = signed_in()
    assert ledger.revoke_session(ALICE, PHONE, EndReason.REVOKED_BY_ADMIN, ASKED).result() == Recorded(True, 4)
    assert ledger.revoke_session(ALICE, PHONE, EndReason.REVOKED_BY_ADMIN, ASKED).result() == Recorded(False, 4)
    assert writer.facts == numbered([*SIGNED_IN, ended(PHONE, EndReason.REVOKED_BY_ADMIN, at=0)])


def test_signing_out_says_so():
    ledger, writer = signed_in()
    assert ledger.sign_out(ALICE, LAPTOP, ASKED).result().result is True
    assert ledger.sign_out(ALICE, LAPTOP, ASKED).result().result is False
    assert writer.facts == numbered([*SIGNED_IN, ended(LAPTOP, EndReason.SIGNED_OUT, at=0)])


def test_revoking_all_counts_what_it_ended():
    ledger, writer = signed_in()
    ledger.create_session("alice", sign_in(TABLET), ASKED)
    assert ledger.revoke_all_sessions(ALICE, EndReason.REVOKE_ALL, ASKED, keep=LAPTOP).result().result == 2
    assert ledger.revoke_all_sessions(ALICE, EndReason.REVOKED_BY_ADMIN, ASKED).result().result == 1
    first, second = EndReason.REVOKE_ALL, EndReason.REVOKED_BY_ADMIN
    ends = [ended(PHONE, first, at=0), ended(TABLET, first, at=0), ended(LAPTOP, second, at=0)]
    assert writer.facts == numbered([*SIGNED_IN, created(TABLET), *ends])


def test_disabling_is_recorded_once():
    ledger, writer = signed_in()
    assert ledger.disable_user("alice", ASKED).result().result is True
    assert ledger.disable_user("alice", ASKED).result().result is False
    assert writer.facts == numbered([*SIGNED_IN, disabled(at=0)])


def test_disabling_a_user_never_heard_of_enrols_and_disables_him_at_once(door):
    ledger, writer = door
    assert ledger.disable_user("mallory", ASKED).result() == Recorded(True, 2)
    assert writer.facts == numbered([enrolled("mallory"), disabled(at=0, stream=stream_of("mallory"))])
    assert len(writer.commands) == 1


def test_enabling_is_recorded_once_after_the_ends_that_it_confirms():
    ledger, writer = signed_in()
    ledger.disable_user("alice", ASKED)
    writer.now = 5
    assert ledger.enable_user("alice", ASKED).result().result is True
    assert ledger.enable_user("alice", ASKED).result().result is False
    ends = [cut_off(session_id, at=5, disabled_at=0, cause=event_id(4)) for session_id in (PHONE, LAPTOP)]
    assert writer.facts == numbered([*SIGNED_IN, disabled(at=0), *ends, enabled(at=5)])


def test_enrolling_is_recorded_once_and_tells_the_stream(door):
    ledger, writer = door
    assert ledger.enrol_user("alice", ASKED).result() == Recorded(ALICE, 1)
    assert ledger.enrol_user("alice", ASKED).result() == Recorded(ALICE, 1)
    assert writer.facts == numbered([enrolled("alice")])


def test_erasing_is_recorded_once(door):
    ledger, writer = door
    ledger.enrol_user("alice", ASKED)
    assert ledger.erase_user("alice", ASKED).result().result is True
    assert ledger.erase_user("alice", ASKED).result().result is False
    assert writer.facts == numbered([enrolled("alice"), erased(at=0)])


def test_erasing_a_user_never_heard_of_enrols_and_erases_him_at_once(door):
    ledger, writer = door
    assert ledger.erase_user("mallory", ASKED).result() == Recorded(True, 2)
    assert writer.facts == numbered([enrolled("mallory"), erased(at=0, stream=stream_of("mallory"))])
    assert len(writer.commands) == 1


def test_who_is_erased_can_neither_sign_in_nor_be_named_as_an_actor(door):
    ledger, writer = door
    ledger.erase_user("alice", ASKED)
    recorded = list(writer.facts)
    refused = [ledger.create_session("alice", sign_in(PHONE), ASKED), ledger.enrol_user("alice", ASKED)]
    assert [type(each.exception()) for each in refused] == [UserIsErased] * 2
    assert writer.facts == recorded


def test_the_ends_that_a_disable_brought_are_recorded_up_to_its_version():
    ledger, writer = signed_in()
    ledger.disable_user("alice", ASKED)
    assert ledger.revoke_disabled_sessions(ALICE, 3, ASKED).result().result == 1
    assert ledger.revoke_disabled_sessions(ALICE, 4, ASKED).result().result == 1
    ends = [cut_off(session_id, at=0, disabled_at=0, cause=event_id(4)) for session_id in (PHONE, LAPTOP)]
    assert writer.facts == numbered([*SIGNED_IN, disabled(at=0), *ends])


def test_the_ends_by_time_are_recorded_once():
    ledger, writer = signed_in()
    writer.now = IDLE + 5
    assert ledger.end_expired_sessions(ALICE, ASKED).result().result == 2
    assert ledger.end_expired_sessions(ALICE, ASKED).result().result == 0
    ends = [timed_out(session_id, at=IDLE + 5, ended_at=IDLE) for session_id in (PHONE, LAPTOP)]
    assert writer.facts == numbered([*SIGNED_IN, *ends])


Ask = Callable[[SessionLedger], "Future[Recorded[Any]]"]


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        pytest.param(lambda ledger: ledger.touch_session(NOBODY, PHONE, ASKED), False, id="touch"),
        pytest.param(
            lambda ledger: ledger.revoke_session(NOBODY, PHONE, EndReason.REVOKED_BY_ADMIN, ASKED), False, id="revoke"
        ),
        pytest.param(lambda ledger: ledger.sign_out(NOBODY, PHONE, ASKED), False, id="sign out"),
        pytest.param(
            lambda ledger: ledger.revoke_all_sessions(NOBODY, EndReason.REVOKE_ALL, ASKED), 0, id="revoke all"
        ),
        pytest.param(lambda ledger: ledger.enable_user("nobody", ASKED), False, id="enable"),
        pytest.param(lambda ledger: ledger.revoke_disabled_sessions(NOBODY, 9, ASKED), 0, id="record a disable"),
        pytest.param(lambda ledger: ledger.end_expired_sessions(NOBODY, ASKED), 0, id="end expired"),
    ],
)
def test_a_user_never_heard_of_has_nothing_to_change(ask: Ask, answer: Any):
    ledger, writer = signed_in()
    recorded = ask(ledger).result()
    assert (recorded.result, type(recorded.result)) == (answer, type(answer))
    assert writer.facts == numbered(SIGNED_IN)


def test_another_users_session_is_out_of_reach():
    ledger, writer = signed_in()
    ledger.enrol_user("bob", ASKED)
    bob = stream_of("bob")
    assert ledger.touch_session(bob, PHONE, ASKED).result().result is False
    assert ledger.sign_out(bob, PHONE, ASKED).result().result is False
    assert ledger.revoke_all_sessions(bob, EndReason.REVOKE_ALL, ASKED).result().result == 0
    assert writer.facts == [*numbered(SIGNED_IN), *numbered([enrolled("bob")])]


def test_every_fact_of_a_command_tells_who_asked_in_which_request_and_in_answer_to_what(door):
    ledger, writer = door
    cause = event_id(41, stream_of("bob"))
    request = Request("user:somebody", correlation_id=event_id(42), causation_id=cause)
    ledger.create_session("alice", sign_in(PHONE), request)
    ledger.create_session("alice", sign_in(LAPTOP, replaces=PHONE), request)
    ledger.disable_user("alice", request)
    told = {(fact.actor, fact.correlation_id, fact.causation_id) for fact in writer.facts}
    assert (len(writer.facts), told) == (5, {("user:somebody", event_id(42), cause)})


# -- what it is made of


def test_a_user_read_through_a_snapshot_is_the_same_user():
    ledger, writer = signed_in()
    ledger.take_snapshot(ALICE)
    writer.now = 60
    ledger.touch_session(ALICE, PHONE, ASKED)
    user = ledger.repository.get(ALICE)
    assert ledger.snapshots is not None
    assert len(list(ledger.snapshots.get(ALICE))) == 1
    assert (user.version, user.sessions[PHONE].last_active_at) == (4, moment(60))


def test_a_repository_with_a_snapshot_reads_only_what_came_after_it(monkeypatch: pytest.MonkeyPatch):
    ledger, _ = signed_in()
    ledger.take_snapshot(ALICE)
    read: list[int | None] = []
    select = ledger.recorder.select_events

    def counting(*args: Any, **named: Any) -> Any:
        read.append(named.get("gt"))
        return select(*args, **named)

    monkeypatch.setattr(ledger.recorder, "select_events", counting)
    ledger.repository.get(ALICE)
    assert read == [3]


def test_the_environment_of_the_process_configures_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IS_SNAPSHOTTING_ENABLED", "n")
    monkeypatch.setenv("AGGREGATE_CACHE_MAXSIZE", "10")
    monkeypatch.setenv("COMPRESSOR_TOPIC", "zlib")
    ledger, _ = new_ledger()
    assert dict(ledger.env) == {"IS_SNAPSHOTTING_ENABLED": "y"}
    assert ledger.snapshots is not None
    assert ledger.repository.cache is None


class NoClock(datetime):
    """As `datetime`, but it knows of no now."""

    @classmethod
    def now(cls, tz: Any = None) -> NoReturn:
        raise AssertionError("somebody looked at the clock")

    utcnow = today = now  # type: ignore[assignment]


def test_no_command_looks_at_the_clock(monkeypatch: pytest.MonkeyPatch):
    after_every_command()  # the types of the facts' fields are read once in a process; so not from `NoClock`
    for module in (eventsourcing.domain, domain.events, domain.session, domain.user):
        monkeypatch.setattr(module, "datetime", NoClock)
    for module in (eventsourcing.domain, eventsourcing.application):
        monkeypatch.setattr(module, "datetime_now_with_tzinfo", NoClock.now)
    with pytest.raises(AssertionError, match="looked at the clock"):
        domain.events.UserDisabled.create_timestamp()

    ledger, writer = after_every_command()
    assert ledger.repository.get(ALICE).version == len(writer.facts)
    assert {fact.TOPIC for fact in writer.facts} == EVERY_TOPIC


def after_every_command() -> tuple[SessionLedger, DirectWriter]:
    ledger, writer = new_ledger(Limits(max_sessions=2))
    for at, ask in enumerate(EVERY_COMMAND):
        writer.now = at * 120
        assert ask(ledger).exception() is None
    ledger.take_snapshot(ALICE)
    return ledger, writer


EVERY_COMMAND: list[Ask] = [
    lambda ledger: ledger.enrol_user("alice", ASKED),
    lambda ledger: ledger.create_session("alice", sign_in(PHONE), ASKED),
    lambda ledger: ledger.touch_session(ALICE, PHONE, ASKED),
    lambda ledger: ledger.revoke_session(ALICE, PHONE, EndReason.REVOKED_BY_USER, ASKED),
    lambda ledger: ledger.create_session("alice", sign_in(LAPTOP), ASKED),
    lambda ledger: ledger.create_session("alice", sign_in(TABLET, replaces=LAPTOP), ASKED),
    lambda ledger: ledger.sign_out(ALICE, TABLET, ASKED),
    lambda ledger: ledger.revoke_all_sessions(ALICE, EndReason.REVOKE_ALL, ASKED),
    lambda ledger: ledger.end_expired_sessions(ALICE, ASKED),
    lambda ledger: ledger.disable_user("alice", ASKED),
    lambda ledger: ledger.revoke_disabled_sessions(ALICE, 9, ASKED),
    lambda ledger: ledger.enable_user("alice", ASKED),
]
EVERY_TOPIC = {"UserEnrolled", "SessionCreated", "SessionTouched", "SessionRevoked", "UserDisabled", "UserEnabled"}
