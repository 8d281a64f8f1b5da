"""`GET /api/audit/export`: the log as a stream, for auditors."""

import csv
import io
import json

import pytest

from api import long_answers
from api.export import MOST, MOST_EACH
from domain.errors import StoreUnavailable
from projections import export as exporting
from store.api_keys import Scope
from tests.api.client import ADMIN, Api, bearer, told, until
from tests.api.listener import Listener
from tests.clock import ManualClock
from tests.store.given import accesses

PATH = "/api/audit/export"


def positions(text: str) -> list[str]:
    return [json.loads(line)["position"] for line in text.splitlines()]


def test_an_auditor_gets_every_event(api: Api):
    api.sign_in()
    _, auditor = api.key(Scope.AUDIT_READ)
    answer = api.get(f"{PATH}?user_id=alice", bearer(auditor))
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/x-ndjson")
    first, second = map(json.loads, answer.text.splitlines())
    assert (first["type"], second["type"]) == ("dev.session-ledger.UserEnrolled", "dev.session-ledger.SessionCreated")
    assert first["source"] == "session-ledger"


def test_filters_are_those_of_the_search(api: Api, clock: ManualClock):
    for user in ("alice", "bob"):
        api.sign_in(user)
        clock.advance(86_400)
    assert positions(api.get(f"{PATH}?user_id=bob", ADMIN).text) == ["3", "4"]
    assert positions(api.get(f"{PATH}?event_type=SessionCreated&after=2", ADMIN).text) == ["4"]
    assert positions(api.get(f"{PATH}?end_date=2026-11-23", ADMIN).text) == ["1", "2"]
    assert told(api.get(f"{PATH}?event_type=Nothing", ADMIN)) == (422, "invalid-request")
    assert told(api.get(f"{PATH}?page=1", ADMIN)) == (422, "invalid-request")
    assert told(api.get(f"{PATH}?after=1&after=2", ADMIN)) == (422, "invalid-request")
    assert told(api.get(f"{PATH}?format=xml", ADMIN)) == (422, "invalid-request")


def test_a_table_is_called_what_it_is(api: Api):
    api.sign_in()
    answer = api.get(f"{PATH}?format=csv", ADMIN)
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="ledger-not-evidence.csv"'
    assert [row[0] for row in csv.reader(io.StringIO(answer.text))] == ["position", "1", "2"]


def test_a_selection_is_called_what_it_is(api: Api):
    api.sign_in()
    for query, name in (("", "ledger.ndjson"), ("after=1", "ledger.ndjson"), ("actor=self", "ledger-selection.ndjson")):
        answer = api.get(f"{PATH}?{query}", ADMIN)
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'


def test_who_reads_is_recorded(api: Api):
    key, auditor = api.key(Scope.AUDIT_READ)
    api.get(f"{PATH}?user_id=alice@example.com", bearer(auditor))
    with api.service.database.reading() as connection:
        [access] = accesses(connection)
    assert access.reader == f"key:{key.key_id}"
    assert '"call": "export"' in access.filter
    assert "alice" not in access.filter


def test_what_cannot_be_read_on_does_not_look_complete(api: Api, monkeypatch: pytest.MonkeyPatch):
    for user in ("alice", "bob"):
        api.sign_in(user)
    monkeypatch.setattr(exporting, "PAGE", 2)
    real = exporting.next_page

    def gone_after_two(connection, after, until, *more):
        if after == 2:
            raise StoreUnavailable("gone")
        return real(connection, after, 2, *more)

    monkeypatch.setattr(exporting, "next_page", gone_after_two)
    with pytest.raises(AssertionError):  # the server tells its client by closing without an end
        api.get(PATH, ADMIN)


def test_a_key_that_is_revoked_meanwhile_gets_nothing_more(api: Api, monkeypatch: pytest.MonkeyPatch):
    key, secret = api.key(Scope.AUDIT_READ)
    api.sign_in()
    monkeypatch.setattr(exporting, "PAGE", 2)
    real = exporting.next_page

    def revoked_after_two(connection, after, until, *more):
        if after == 2:
            assert api.revoke_key(key)
        return real(connection, after, 2, *more) if after == 0 else real(connection, after, until, *more)

    monkeypatch.setattr(exporting, "next_page", revoked_after_two)
    with pytest.raises(AssertionError):
        api.get(PATH, bearer(secret))


def test_an_export_that_nobody_reads_ends_with_its_key(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(long_answers, "CHECK_S", 0.05)
    key, secret = api.key(Scope.AUDIT_READ)
    stalled = Listener(api, PATH, bearer(secret), {}, takes=False)
    assert api.revoke_key(key)
    until(lambda: stalled.is_over)
    assert stalled.answering.result() is None
    assert api.app.state.exports.are_free


def test_no_more_exports_run_at_once_than_there_is_room_for(api: Api):
    exports = api.app.state.exports
    for number in range(MOST):
        exports.enter(f"reader {number}")
    assert told(api.get(PATH, ADMIN)) == (503, "busy")
    exports.leave("reader 0")
    for _ in range(2):
        assert api.get(PATH, ADMIN).status_code == 200


def test_one_reader_leaves_room_for_others(api: Api):
    key, secret = api.key(Scope.AUDIT_READ)
    for _ in range(MOST_EACH):
        api.app.state.exports.enter(f"key:{key.key_id}")
    assert told(api.get(PATH, bearer(secret))) == (503, "busy")
    assert api.get(PATH, ADMIN).status_code == 200
