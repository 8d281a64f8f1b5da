"""What auditors are told, by whom it may be seen, and that they were told it is recorded (OBS-02, T-22, T-25)."""

import itertools
import json
import logging
from collections import Counter
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from eventsourcing.persistence import StoredEvent
from sqlalchemy import delete, select, text, update

from api.audit import DEEPEST
from store.api_keys import Scope
from store.keys import user_keys
from store.schema import identities
from tests.api.client import ADMIN, Api, Headers, bearer, settled, told, until
from tests.postgres import Database
from tests.projections.driver import insert_as_owner
from tests.store.given import accesses

CLIENT = {"ip_address": "203.0.113.7", "user_agent": "Mozilla/5.0 (canary)"}
PERSONAL = ("user_id", "actor_name", "ip_address", "user_agent")
Event = dict[str, Any]


@pytest.fixture
def reader(api: Api) -> Headers:
    """An auditor who sees no personal data."""
    return bearer(api.key(Scope.AUDIT_READ)[1])


@pytest.fixture
def storied(api: Api) -> Api:
    """Three users; what happened to them spans two days."""
    for user in ("alice", "bob", "carol"):
        first, second = api.sign_in(user, **CLIENT), api.sign_in(user)
        api.clock.advance(300)
        api.is_active(first.bearer)
        api.delete(f"/api/sessions/{second.id}", first.bearer)
        api.clock.advance(8 * 3600)
    api.sign_in("bob")
    api.post("/api/users/bob/disable", ADMIN)
    settled(api)
    return api


def asked(api: Api, path: str, headers: Headers = ADMIN) -> Any:
    answer = api.get(path, headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def events(api: Api, query: str = "limit=100", headers: Headers = ADMIN) -> list[Event]:
    return asked(api, f"/api/audit?{query}", headers)["events"]


def next_page(answer: httpx.Response) -> str | None:
    """The target of its `Link`."""
    link = answer.headers.get("Link")
    return link and link.removeprefix("<").removesuffix('>; rel="next"')


def paged(api: Api, path: str, headers: Headers = ADMIN) -> list[Event]:
    """All pages, from one to the next by `Link`."""
    found = []
    following: str | None = path
    while following:
        answer = api.get(following, headers)
        found += answer.json()["events"]
        following = next_page(answer)
    return found


# -- what is told


def test_an_event_is_told_with_actor_reason_time_and_cause(storied: Api):
    [ended] = [e for e in events(storied, "event_type=SessionRevoked") if e["reason"] == "user_disabled"]
    [disabled] = events(storied, "event_type=UserDisabled")
    assert ended["actor"] == "policy:revoke-sessions-on-user-disabled"
    assert (ended["causation_id"], ended["correlation_id"]) == (disabled["id"], disabled["correlation_id"])
    assert (ended["user_id"], disabled["actor"]) == ("bob", "key:bootstrap")
    assert disabled["timestamp"] == "2026-11-24T12:15:00Z" == disabled["recorded_at"]


def test_the_whole_log_is_told_newest_first_and_how_fresh_that_is(storied: Api):
    answer = asked(storied, "/api/audit?limit=100")
    assert [(e["event_type"], e["actor"]) for e in reversed(answer["events"])] == storied.log()
    assert answer["position"] == answer["head"] == len(storied.log())


def test_one_event_is_told_by_its_id(storied: Api):
    for event in events(storied):
        assert asked(storied, f"/api/audit/{event['id']}")["event"] == event
    assert told(storied.get(f"/api/audit/{uuid4()}", ADMIN)) == (404, "event-not-found")
    assert told(storied.get("/api/audit/x", ADMIN)) == (422, "invalid-request")


def test_types_are_told_with_their_numbers(storied: Api):
    counted = {e["event_type"]: e["count"] for e in asked(storied, "/api/audit/events")["event_types"]}
    assert counted == Counter(topic for topic, _ in storied.log())


def test_a_users_events_are_had_by_his_path_and_by_a_filter(storied: Api):
    of_alice = asked(storied, "/api/users/alice/audit?limit=100")["events"]
    assert of_alice == events(storied, "limit=100&user_id=alice")
    assert {e["user_id"] for e in of_alice} == {"alice"}
    assert len(of_alice) == len([e for e in events(storied) if e["user_id"] == "alice"])
    assert asked(storied, "/api/users/nobody/audit")["events"] == []


def test_a_date_is_that_day_from_its_first_to_its_last_moment(storied: Api):
    first, second = "2026-11-23", "2026-11-24"
    of_days = [events(storied, f"limit=100&start_date={day}&end_date={day}") for day in (first, second)]
    assert of_days[1] + of_days[0] == events(storied)
    assert [{e["recorded_at"][:10] for e in day} for day in of_days] == [{first}, {second}]


def test_a_moment_includes_itself_at_both_ends(storied: Api):
    moment = events(storied)[4]["recorded_at"]
    at_it = [e for e in events(storied) if e["recorded_at"] == moment]
    assert events(storied, f"start_date={moment}&end_date={moment}") == at_it


# -- every filter and page against a scan of everything


def test_every_filter_limit_and_cursor_says_what_a_full_scan_says(storied: Api):
    everything = events(storied)
    session, other = everything[-2]["session_id"], everything[0]["recorded_at"]
    for given in itertools.product(
        (None, "SessionRevoked"), (None, "bob"), (None, session), (None, "self"), (None, "2026-11-24"), (None, other)
    ):
        names = ("event_type", "user_id", "session_id", "actor", "start_date", "end_date")
        filters = {name: value for name, value in zip(names, given, strict=True) if value}
        wanted = [event for event in everything if fits(event, filters)]
        for limit in (1, 2, 3, 7, 50):
            query = httpx.QueryParams({**filters, "limit": limit})
            assert paged(storied, f"/api/audit?{query}") == wanted, (filters, limit)


def fits(event: Event, filters: dict[str, str]) -> bool:
    exact = all(event[name] == filters[name] for name in filters if not name.endswith("_date"))
    return exact and filters.get("start_date", "") <= event["recorded_at"] <= filters.get("end_date", "9")


def test_pages_by_number_say_the_same(storied: Api):
    pages = [events(storied, f"limit=3&page={page}") for page in range(1, 12)]
    assert [*itertools.chain.from_iterable(pages)] == events(storied)


def test_what_comes_while_somebody_pages_neither_moves_nor_doubles_a_row(storied: Api):
    before = events(storied)
    answer = storied.get("/api/audit?limit=5", ADMIN)
    storied.sign_in("dave")
    settled(storied)
    assert answer.json()["events"] + paged(storied, str(next_page(answer))) == before


def test_pages_by_number_end_at_a_depth_and_name_the_cursor(storied: Api):
    assert events(storied, f"limit=100&page={DEEPEST // 100}") == []
    for asked in (f"limit=100&page={DEEPEST // 100 + 1}", f"limit=1&page={DEEPEST + 1}", f"page={10**9}"):
        answer = storied.get(f"/api/audit?{asked}", ADMIN)
        assert told(answer) == (400, "page-too-deep"), asked
        assert "cursor" in answer.json()["detail"]


def test_t_22_a_cursor_is_good_for_its_question_and_for_who_got_it(storied: Api, reader: Headers):
    following = str(next_page(storied.get("/api/audit?limit=2&user_id=alice", ADMIN)))
    assert storied.get(following, ADMIN).status_code == 200
    assert storied.get(following.replace("limit=2", "limit=3"), ADMIN).status_code == 200
    for path, headers in [
        (following, reader),
        (following.replace("alice", "bob"), ADMIN),
        (following.replace("user_id=alice&", ""), ADMIN),
        (following + "x", ADMIN),
        ("/api/audit?cursor=", ADMIN),
    ]:
        assert told(storied.get(path, headers)) == (400, "invalid-cursor"), path


# -- malformed questions

MALFORMED = {
    "start_date=yesterday": "start_date",
    "end_date=2026-02-30": "end_date",
    "start_date=2026-11-26T10:00:00+01:00": "start_date",  # the + is a space in a query
    "start_date=2026-11-27&end_date=2026-11-26": "start_date",
    "event_type=SessionDeleted": "event_type",
    "session_id=x": "session_id",
    "actor=alice": "actor",
    "user_id=": "user_id",
    "limit=0": "limit",
    "limit=101": "limit",
    "page=0": "page",
    "page=1&cursor=x": "page",
    "userid=alice": "userid",
    "user_id=alice&user_id=bob": "user_id",
}


@pytest.mark.parametrize("query", MALFORMED)
def test_a_malformed_question_is_an_error_that_names_the_parameter(shared_api: Api, query: str):
    answer = shared_api.get(f"/api/audit?{query}", ADMIN)
    assert told(answer) == (422, "invalid-request")
    assert answer.json()["errors"][0]["parameter"] == MALFORMED[query]


# -- personal data (T-25)


def test_with_the_right_scope_people_are_named_and_clients_told(storied: Api):
    [created, plain] = events(storied, "event_type=SessionCreated&user_id=alice")[::-1]
    assert (created["user_id"], created["actor"], created["actor_name"]) == ("alice", "key:bootstrap", None)
    assert {name: created[name] for name in CLIENT} == CLIENT
    assert (plain["ip_address"], plain["user_agent"]) == (None, None)
    ended = events(storied, "event_type=SessionRevoked&user_id=alice")[0]
    assert (ended["actor"], ended["actor_name"]) == ("self", "alice")


def test_keys_and_administrators_are_named(api: Api):
    key, secret = api.key(*Scope)
    api.post("/api/users/bob/disable", bearer(secret))
    admin = api.sign_in("root")
    api.post("/api/users/carol/disable", bearer(admin.access_token(scope="users:admin")))
    settled(api)
    by_admin, by_key = events(api, "event_type=UserDisabled")
    assert (by_key["actor"], by_key["actor_name"]) == (f"key:{key.key_id}", "test")
    assert (by_admin["actor"], by_admin["actor_name"]) == (f"user:{api.service.keys.pseudonym('root')}", "root")


def test_without_it_nothing_personal_is_told_whatever_is_asked(storied: Api, reader: Headers):
    for path in ("/api/audit?limit=100", "/api/audit?user_id=alice", "/api/users/alice/audit"):
        answer = storied.get(path, reader)
        found = answer.json()["events"]
        assert found
        assert {event[name] for event in found for name in PERSONAL} == {None}
        assert [secret for secret in ("alice", "bob", "203.0.113", "canary") if secret in answer.text] == []
    [event] = events(storied, "limit=1", reader)
    assert {asked(storied, f"/api/audit/{event['id']}", reader)["event"][name] for name in PERSONAL} == {None}


def test_personal_data_is_no_right_without_the_log(api: Api):
    headers = bearer(api.key(Scope.AUDIT_PERSONAL)[1])
    assert told(api.get("/api/audit", headers)) == (403, "insufficient-scope")


@pytest.mark.parametrize("gone", ["key", "name", "both"])
def test_of_somebody_who_is_being_forgotten_his_events_stay_without_him(storied: Api, gone: str):
    before = events(storied, "user_id=alice")
    stream = storied.service.keys.pseudonym("alice")
    if gone != "key":
        with storied.service.database.transaction() as connection:
            connection.execute(delete(identities).where(identities.c.stream == stream))
    if gone != "name":
        with storied.service.keys_database.transaction() as connection:
            connection.execute(update(user_keys).where(user_keys.c.stream == stream).values(wrapped=None))
    after = events(storied, "user_id=alice")
    assert [without_person(event) for event in after] == [without_person(event) for event in before]
    assert {event["user_id"] for event in after} == {event["actor_name"] for event in after} == {None}
    if gone != "name":
        assert {event["ip_address"] for event in after} == {None}


def test_of_an_erased_user_the_events_stay_and_nothing_names_him(storied: Api):
    before = events(storied, "user_id=alice")
    assert storied.delete("/api/users/alice", ADMIN).status_code == 200
    settled(storied)
    after = events(storied, "user_id=alice")
    [erased] = [event for event in after if event["event_type"] == "UserErased"]
    assert [without_person(event) for event in after[-len(before) :]] == [without_person(event) for event in before]
    assert {event[name] for event in after for name in PERSONAL} == {None}
    assert erased["actor"] == "key:bootstrap"


def without_person(event: Event) -> Event:
    return {name: value for name, value in event.items() if name not in PERSONAL}


# -- who has read is recorded


def test_each_look_is_recorded_once_an_hour_with_its_number_and_without_personal_data(
    storied: Api, reader: Headers, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, "ledger.security"):
        for _ in range(3):
            asked(storied, "/api/audit?user_id=alice", reader)
        asked(storied, "/api/audit/events")
    with storied.service.database.reading() as connection:
        rows = accesses(connection)
    stream = str(storied.service.keys.pseudonym("alice"))
    searched = {"call": "search", "personal": False, "stream": stream}
    counted = {"call": "events", "personal": True}
    recorded = {row.reader: (json.loads(row.filter), row.reads) for row in rows}
    assert recorded.pop("key:bootstrap") == (counted, 1)
    assert [*recorded.values()] == [(searched, 3)]
    told_of = [record.fields for record in caplog.records if record.name == "ledger.security"]
    assert [json.loads(fields["asked"]) for fields in told_of] == [searched, searched, searched, counted]
    assert "alice" not in repr(rows) + repr(told_of)


def test_reading_writes_nothing_into_the_ledger(storied: Api):
    head = storied.service.recorder.max_notification_id()
    events(storied)
    assert storied.service.recorder.max_notification_id() == head


def test_who_cannot_be_recorded_is_told_nothing(storied: Api):
    [event] = events(storied, "limit=1")
    with storied.service.database.transaction() as connection:
        connection.execute(text("DROP TABLE audit_access"))
    for path in ("/api/audit", "/api/audit/events", f"/api/audit/{event['id']}", "/api/users/alice/audit"):
        answer = storied.get(path, ADMIN)
        assert told(answer) == (503, "store-unavailable")
        assert event["id"] not in answer.text


def test_an_answer_may_be_behind_and_says_so(api: Api):
    settled(api)
    api.service.follower.close()
    api.sign_in()
    answer = asked(api, "/api/audit")
    assert (answer["events"], answer["position"], answer["head"]) == ([], 0, 2)


def test_f_18_behind_a_poison_event_the_audit_stands_still_loudly_and_requests_are_served(api: Api, database: Database):
    alice = api.sign_in()
    settled(api)
    insert_as_owner(api.service, database, StoredEvent(uuid4(), 1, "NeverHeardOf", b"{}"))
    until(lambda: api.get("/readyz").json()["status"] == "degraded")
    readiness = api.get("/readyz").json()
    [audit] = readiness["projections"]
    assert (audit["position"], audit["lag_events"]) == (2, 1)
    assert "at position 3" in audit["parked"]
    assert [policy["parked"] for policy in readiness["policies"]] == [None] * len(readiness["policies"])
    answer = asked(api, "/api/audit")
    assert (len(answer["events"]), answer["position"], answer["head"]) == (2, 2, 3)
    assert api.is_active(alice.bearer)


def test_the_names_in_an_answer_are_those_of_the_log(storied: Api):
    with storied.service.database.reading() as connection:
        known = {user_id for _, user_id in connection.execute(select(identities))}
    assert {event["user_id"] for event in events(storied)} == known
    assert all(UUID(event["stream"]) for event in events(storied))
