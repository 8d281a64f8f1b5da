from datetime import UTC, datetime
from uuid import UUID

import pytest
from pydantic import ValidationError

from api.audit_filter import AuditQuestion
from api.errors import Problem
from domain.events import SessionCreated, UserErased
from projections.audit_filter import AuditFilter, event_types
from store.clock import to_micros

DAY = datetime(2026, 11, 26, tzinfo=UTC)


def test_a_question_names_a_user_by_his_stream():
    stream = UUID(int=7)
    asked = AuditQuestion(event_type="SessionCreated", user_id="alice", start_date="2026-11-26", end_date="2026-11-26")
    first, last = to_micros(DAY), to_micros(DAY) + 86_400 * 1_000_000 - 1
    assert asked.asks({"alice": stream}.__getitem__) == AuditFilter("SessionCreated", stream, start=first, end=last)


def test_a_start_after_the_end_is_an_error_and_an_equal_one_is_none():
    same = AuditQuestion(start_date="2026-11-26T00:00:00Z", end_date="2026-11-26T00:00:00Z")
    assert same.asks(lambda _: UUID(int=7)) == AuditFilter(start=to_micros(DAY), end=to_micros(DAY))
    with pytest.raises(Problem) as refusal:
        AuditQuestion(start_date="2026-11-27", end_date="2026-11-26").asks(lambda _: UUID(int=7))
    assert refusal.value.extensions["errors"] == [{"parameter": "start_date", "detail": "lies after end_date"}]


def test_every_type_of_event_may_be_asked_for_and_no_other():
    assert {SessionCreated.TOPIC, UserErased.TOPIC} <= {*event_types()}
    for event_type in event_types():
        AuditQuestion(event_type=event_type)
    with pytest.raises(ValidationError, match="no such type of event"):
        AuditQuestion(event_type="SessionDeleted")


@pytest.mark.parametrize("actor", ["self", "operator", "key:bootstrap", "policy:end-sessions-on-timeout"])
def test_an_actor_is_asked_for_as_events_name_him(actor: str):
    assert AuditQuestion(actor=actor).actor == actor


@pytest.mark.parametrize("actor", ["", "alice", "key:", "user:a b", "self\n", "policy:" + "x" * 129])
def test_what_events_never_call_an_actor_is_refused(actor: str):
    with pytest.raises(ValidationError, match="actor"):
        AuditQuestion(actor=actor)


def test_a_parameter_that_nobody_knows_is_refused():
    with pytest.raises(ValidationError, match="userid"):
        AuditQuestion(userid="alice")
