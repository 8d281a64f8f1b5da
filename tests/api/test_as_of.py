"""`GET /api/users/{user_id}/sessions?as_of=…`: what was, to administrators and auditors."""

import pytest

from store.api_keys import Scope
from tests.api.client import ADMIN, Api, bearer, told
from tests.clock import ManualClock
from tests.store.given import accesses

THEN = "2026-11-23T12:00:00Z"
PATH = f"/api/users/alice/sessions?as_of={THEN}"


def test_an_administrator_sees_what_was_and_how_it_ended(api: Api, clock: ManualClock):
    session = api.sign_in(ip_address="203.0.113.7", user_agent="curl/8.0")
    clock.advance(60)
    api.delete("/api/users/alice/sessions", ADMIN)
    assert api.sessions(api.sign_in().bearer) != []
    answer = api.get(PATH, ADMIN).json()
    assert (answer["as_of"], answer["position"]) == (THEN, "2")
    [shown] = answer["sessions"]
    assert (shown["id"], shown["ip_address"], shown["user_agent"]) == (session.id, "203.0.113.7", "curl/8.0")
    assert (shown["ended_at"], shown["end_reason"]) == ("2026-11-23T12:01:00Z", "revoked_by_admin")
    assert shown["is_current"] is False


def test_an_auditor_sees_it_without_personal_data(api: Api):
    api.sign_in(ip_address="203.0.113.7", user_agent="curl/8.0")
    _, auditor = api.key(Scope.AUDIT_READ)
    _, privacy_officer = api.key(Scope.AUDIT_READ, Scope.AUDIT_PERSONAL)
    [shown] = api.get(PATH, bearer(auditor)).json()["sessions"]
    assert (shown["ip_address"], shown["user_agent"], shown["device"]) == (None, None, "curl")
    [shown] = api.get(PATH, bearer(privacy_officer)).json()["sessions"]
    assert (shown["ip_address"], shown["user_agent"]) == ("203.0.113.7", "curl/8.0")


def test_an_auditor_asks_only_about_moments(api: Api):
    _, auditor = api.key(Scope.AUDIT_READ)
    assert told(api.get("/api/users/alice/sessions", bearer(auditor))) == (403, "insufficient-scope")
    _, other = api.key(Scope.SESSIONS_CREATE, Scope.AUDIT_PERSONAL)
    assert told(api.get(PATH, bearer(other))) == (403, "insufficient-scope")


def test_an_unknown_user_had_no_sessions(api: Api):
    answer = api.get(PATH, ADMIN)
    assert (answer.status_code, answer.json()) == (200, {"sessions": [], "as_of": THEN, "position": "0"})


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("as_of=2026-11-23T12:00:01Z", "lies in the future"),
        ("as_of=2026-11-23T12:00:00", "not a moment as RFC 3339 writes it"),
        ("as_of=1795000000", "not a moment as RFC 3339 writes it"),
        (f"as_of={THEN}&status=all", "goes with no other parameter"),
        (f"as_of={THEN}&cursor=x", "goes with no other parameter"),
    ],
)
def test_a_question_that_makes_no_sense_is_named(shared_api: Api, query: str, fault: str):
    answer = shared_api.get(f"/api/users/alice/sessions?{query}", ADMIN)
    assert told(answer) == (422, "invalid-request")
    assert answer.json()["errors"] == [{"parameter": "as_of", "detail": fault}]


def test_who_looks_back_is_recorded(api: Api):
    key, auditor = api.key(Scope.AUDIT_READ)
    api.get(PATH, bearer(auditor))
    with api.service.database.reading() as connection:
        [access] = accesses(connection)
    assert access.reader == f"key:{key.key_id}"
    assert '"call": "as_of"' in access.filter
    assert "alice" not in access.filter
