"""Ending the sessions of many: of everybody, or of the users that are named."""

from uuid import uuid4

import pytest

from domain.events import EndReason
from store.api_keys import Scope
from tests.api.client import ADMIN, Api, bearer, told, until
from tests.clock import ManualClock
from tests.conftest import OpenService
from tests.store.given import Caller, request, result
from tests.store.given import topics as topics_of

PATH = "/api/sessions/revoke"
EVERYBODY = {"reason": "revoke_all", "dry_run": False}
POLICY = "policy:end-sessions-on-sessions-invalidated"


def asked(api: Api, **body: object) -> dict[str, object]:
    answer = api.post(PATH, ADMIN, json={"reason": "revoked_by_admin", "dry_run": False, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def history(api: Api, user_id: str) -> list[dict[str, str]]:
    return api.get(f"/api/users/{user_id}/sessions?status=ended", ADMIN).json()["sessions"]


def ended(api: Api, user_id: str) -> list[tuple[str, str, str]]:
    return [(s["ended_at"], s["end_reason"], s["ended_by"]) for s in history(api, user_id)]


def topics(api: Api) -> list[str]:
    return [topic for topic, _ in api.log()]


# -- everybody


def test_everybody_is_signed_out_by_one_fact_though_nobody_records_the_ends(api: Api):
    api.service.follower.close()
    alice, bob = api.sign_in(), api.sign_in("bob")
    api.clock.advance(5)
    answer = asked(api, reason="revoke_all")
    assert (answer["revoked_count"], answer["user_count"]) == (2, 2)
    assert answer["created_before"] == "2026-11-23T12:00:05.000001Z"  # this instant included
    for headers in (*alice.ways_in.values(), *bob.ways_in.values()):
        assert told(api.get("/api/auth/session", headers)) == (401, "invalid-credential")
    assert topics(api)[-1] == "SessionsInvalidatedBefore"
    assert topics(api).count("SessionRevoked") == 0
    assert ended(api, "alice") == [("2026-11-23T12:00:05Z", "revoke_all", POLICY)]


def test_the_ends_follow_as_events_and_are_shown_as_before(api: Api):
    ids = {api.sign_in(name).id for name in ("alice", "bob", "carol")}
    api.clock.advance(5)
    answer = asked(api)
    shown = [ended(api, name) for name in ("alice", "bob", "carol")]
    until(lambda: topics(api).count("SessionRevoked") == 3)
    api.clock.advance(60)
    assert [ended(api, name) for name in ("alice", "bob", "carol")] == shown
    assert {s["id"] for name in ("alice", "bob", "carol") for s in history(api, name)} == ids
    with api.service.database.reading() as connection:
        rows = connection.exec_driver_sql("SELECT state FROM events WHERE topic = 'SessionRevoked'").scalars()
        correlated = str(answer["correlation_id"]).replace("-", "").encode()
        assert all(correlated in bytes(state) for state in rows)


def test_who_signs_in_afterwards_stays(api: Api):
    old = api.sign_in()
    asked(api)
    new = api.sign_in()
    assert not api.is_active(old.bearer)
    assert api.is_active(new.bearer)
    api.clock.advance(120)
    assert api.get("/api/auth/session", new.bearer).status_code == 200
    until(lambda: topics(api).count("SessionTouched") == 1)


def test_only_sessions_from_before_the_moment_end(api: Api):
    old = api.sign_in()
    api.clock.advance(10)
    young = api.sign_in()
    api.clock.advance(10)
    answer = asked(api, created_before="2026-11-23T12:00:10Z")
    assert (answer["revoked_count"], answer["user_count"]) == (1, 1)
    assert not api.is_active(old.bearer)
    assert api.is_active(young.bearer)


def test_the_first_of_two_decides_when_and_why(api: Api):
    api.service.follower.close()
    api.sign_in()
    api.clock.advance(5)
    asked(api, reason="revoke_all")
    api.clock.advance(5)
    asked(api, reason="revoked_by_admin")
    assert ended(api, "alice") == [("2026-11-23T12:00:05Z", "revoke_all", POLICY)]
    api.service.sweeper.sweep()
    assert ended(api, "alice") == [("2026-11-23T12:00:05Z", "revoke_all", POLICY)]


def test_a_session_that_time_or_a_disable_had_ended_ended_by_that(api: Api):
    api.service.follower.close()
    api.sign_in()
    api.sign_in("bob")
    api.post("/api/users/bob/disable", ADMIN)
    api.clock.advance(3600)
    answer = asked(api)
    assert (answer["revoked_count"], answer["user_count"]) == (0, 0)
    assert [reason for _, reason, _ in ended(api, "alice")] == ["inactivity_timeout"]
    assert [reason for _, reason, _ in ended(api, "bob")] == ["user_disabled"]
    api.service.sweeper.sweep()
    api.post("/api/users/bob/enable", ADMIN)
    assert [reason for _, reason, _ in ended(api, "alice")] == ["inactivity_timeout"]
    assert [reason for _, reason, _ in ended(api, "bob")] == ["user_disabled"]


def test_the_token_of_an_idempotent_sign_in_is_not_given_out_again(api: Api):
    body = {"user_id": "alice"}
    assert api.begin(body, **{"Idempotency-Key": "one"}).status_code == 201
    asked(api)
    assert told(api.begin(body, **{"Idempotency-Key": "one"})) == (409, "idempotent-session-ended")


# -- the users that are named


def test_the_sessions_of_those_who_are_named_end_under_one_correlation_id(api: Api):
    alice, bob, carol = (api.sign_in(name) for name in ("alice", "bob", "carol"))
    api.sign_in()
    answer = asked(api, user_ids=["alice", "bob", "nobody"])
    assert (answer["revoked_count"], answer["user_count"]) == (3, 2)
    assert not api.is_active(alice.bearer)
    assert not api.is_active(bob.bearer)
    assert api.is_active(carol.bearer)
    assert {reason for _, reason, _ in ended(api, "alice")} == {"revoked_by_admin"}
    assert topics(api)[-4:] == ["SessionRevocationRequested", *["SessionRevoked"] * 3]
    again = asked(api, user_ids=["alice", "bob", "nobody"])
    assert (again["revoked_count"], again["user_count"]) == (0, 0)


def test_those_who_are_named_keep_what_began_later(api: Api):
    old = api.sign_in()
    api.clock.advance(10)
    young = api.sign_in()
    answer = asked(api, user_ids=["alice"], created_before="2026-11-23T12:00:10Z")
    assert (answer["revoked_count"], answer["user_count"]) == (1, 1)
    assert not api.is_active(old.bearer)
    assert api.is_active(young.bearer)


def test_what_time_had_ended_though_nobody_had_recorded_it_does_not_count(api: Api):
    """Its end is recorded on the way, on behalf of the same request."""
    api.sign_in()
    api.sign_in(remember_me=True)
    api.clock.advance(3600)
    assert asked(api, user_ids=["alice"], dry_run=True)["revoked_count"] == 1
    answer = asked(api, user_ids=["alice"])
    assert (answer["revoked_count"], answer["user_count"]) == (1, 1)


def test_a_job_that_was_only_recorded_is_finished_by_whoever_follows(open_service: OpenService):
    service = open_service()
    caller = Caller(service)
    for name in ("alice", "bob"):
        result(caller.creates(name))
    users = tuple(map(caller.stream, ("alice", "bob")))
    result(service.ledger.request_revocation(users, None, EndReason.REVOKED_BY_ADMIN, request()))
    service.close()  # before anybody followed
    after = open_service()
    after.start()
    until(lambda: (after.recorder.max_notification_id() or 0) == 7)


def test_jobs_that_have_piled_up_are_more_than_the_queue_takes_and_are_finished(
    open_service: OpenService, monkeypatch: pytest.MonkeyPatch
):
    service = open_service()
    caller = Caller(service)
    names = [f"user {n}" for n in range(5)]
    for name in names:
        result(caller.creates(name))
    for name in names:
        users = (*(uuid4() for _ in range(9)), caller.stream(name))
        result(service.ledger.request_revocation(users, None, EndReason.REVOKED_BY_ADMIN, request()))
    monkeypatch.setattr("store.writer.QUEUE_SIZE", 20)
    service.start()
    until(lambda: all("SessionRevoked" in topics_of(service, name) for name in names))


# -- a dry run, and who may


def test_a_dry_run_counts_exactly_and_changes_nothing(api: Api):
    for name in ("alice", "alice", "bob", "carol"):
        api.sign_in(name)
    api.post("/api/users/carol/disable", ADMIN)
    until(lambda: topics(api).count("SessionRevoked") == 1)
    before = api.log()
    everybody = asked(api, dry_run=True)
    assert (everybody["revoked_count"], everybody["user_count"], everybody["correlation_id"]) == (3, 2, None)
    some = asked(api, dry_run=True, user_ids=["alice", "carol"])
    assert (some["revoked_count"], some["user_count"]) == (2, 1)
    assert api.log() == before
    assert asked(api)["revoked_count"] == 3


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/reason"),
        ({"reason": "revoke_all"}, "/dry_run"),
        ({"reason": "signed_out", "dry_run": True}, "/reason"),
        ({**EVERYBODY, "created_before": "2026-11-23T12:00:01Z"}, "/created_before"),
        ({**EVERYBODY, "created_before": "2026-11-23T12:00:01"}, "/created_before"),
        ({**EVERYBODY, "user_ids": []}, "/user_ids"),
        ({**EVERYBODY, "user_ids": ["a"] * 101}, "/user_ids"),
        ({**EVERYBODY, "user_ids": [""]}, "/user_ids/0"),
        ({**EVERYBODY, "users": ["alice"]}, "/users"),
        ({**EVERYBODY, "user_ids": None}, "/user_ids"),
        ({**EVERYBODY, "created_before": None}, "/created_before"),
    ],
)
def test_what_is_wrong_is_named_and_nobody_is_signed_out(shared_api: Api, body: dict[str, object], pointer: str):
    alice = shared_api.sign_in()
    answer = shared_api.post(PATH, ADMIN, json=body)
    assert told(answer) == (422, "invalid-request")
    assert pointer in {error["pointer"] for error in answer.json()["errors"]}
    assert shared_api.is_active(alice.bearer)


def test_only_an_administrator_may(api: Api):
    alice = api.sign_in()
    _, secret = api.key(*(scope for scope in Scope if scope != Scope.USERS_ADMIN))
    for headers in (alice.bearer, bearer(secret)):
        assert told(api.post(PATH, headers, json=EVERYBODY)) == (403, "insufficient-scope")
    assert api.is_active(alice.bearer)


@pytest.mark.parametrize("named", [False, True], ids=["everybody", "named"])
def test_a_session_of_a_process_whose_clock_is_ahead_ends_too_and_the_next_one_lives(
    open_service: OpenService, clock: ManualClock, named: bool
):
    here, there = Caller(open_service()), Caller(open_service())
    there.service.clock = ahead = ManualClock()
    ahead.advance(5)
    there.service.writer._clock = there.service.writer._decider._clock = ahead
    early = result(there.creates("alice"))
    if named:
        noted = here.service.ledger.request_revocation(
            (here.stream("alice"),), None, EndReason.REVOKED_BY_ADMIN, request()
        )
        before = result(noted).before
        result(
            here.service.ledger.revoke_sessions_before(
                here.stream("alice"), before, EndReason.REVOKED_BY_ADMIN, request()
            )
        )
    else:
        before = result(here.service.ledger.invalidate_sessions(None, EndReason.REVOKE_ALL, request()))
    assert early.created_at > clock.now()
    assert early.created_at < before
    later = result(here.creates("alice"))
    assert later.created_at >= (early.created_at if named else before)
    assert [result(here.touches(session, "alice")) for session in (early, later)] == [False, True]


def test_what_one_process_signed_out_is_signed_out_for_the_other(open_service: OpenService):
    here, there = Caller(open_service()), Caller(open_service())
    session = result(here.creates("alice"))
    result(there.creates("bob"))
    result(there.service.ledger.invalidate_sessions(None, EndReason.REVOKE_ALL, request()))
    assert result(here.touches(session, "alice")) is False
    assert result(here.revokes(session, "alice")) is False
    renewed = result(here.creates("alice"))
    assert result(here.touches(renewed, "alice")) is True
