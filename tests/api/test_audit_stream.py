"""Server-Sent Events: complete, in order, resumable, and over when they must be."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from api import audit_stream, audit_streams, long_answers
from store.api_keys import Scope
from tests.api.client import ADMIN, Api, Headers, bearer, settled, told, until
from tests.api.conftest import OpenApi
from tests.api.listener import Event, Listener
from tests.store.given import accesses

PATH = "/api/audit/stream"
Listen = Callable[..., "Listener"]


@pytest.fixture
def api(open_api: OpenApi, monkeypatch: pytest.MonkeyPatch) -> Api:
    """Its streams look at credentials all the time."""
    for module in (audit_stream, long_answers):
        monkeypatch.setattr(module, "CHECK_S", 0.05)
    monkeypatch.setattr(audit_streams, "POLL_S", 0.02)
    return open_api(streams=True)


@pytest.fixture
def listen(api: Api) -> Iterator[Listen]:
    listeners: list[Listener] = []

    def begin(headers: Headers = ADMIN, *, takes: bool = True, **query: str) -> Listener:
        listeners.append(Listener(api, PATH, headers, query, takes=takes))
        return listeners[-1]

    yield begin
    for listener in listeners:
        listener.hang_up()
        listener.answering.result(20)


def log(api: Api, query: str = "limit=100") -> list[Event]:
    """What a search says, in the order of the log."""
    settled(api)
    return api.get(f"/api/audit?{query}", ADMIN).json()["events"][::-1]


def test_events_come_as_they_are_recorded_and_none_from_before(api: Api, listen: Listen):
    api.sign_in("alice")
    before = log(api)
    listener = listen()
    api.sign_in("bob")
    api.post("/api/users/bob/disable", ADMIN)
    after = log(api)[len(before) :]
    until(lambda: len(listener.events) == len(after))
    assert listener.events == after


def test_who_comes_again_with_the_last_event_misses_none_and_gets_none_twice(
    api: Api, listen: Listen, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(audit_stream, "BATCH", 3)
    for _ in range(5):
        api.sign_in()
    whole = log(api)
    for place, event in enumerate(whole):
        listener = listen({**ADMIN, "Last-Event-ID": event["id"]})
        until(lambda: len(listener.events) == len(whole) - place - 1)  # noqa: B023
        assert listener.events == whole[place + 1 :]


def test_with_a_start_the_past_comes_first(api: Api, listen: Listen):
    api.sign_in("alice")
    api.clock.advance(86_400)
    api.sign_in("bob")
    today = log(api, "limit=100&start_date=2026-11-24")
    listener = listen(start_date="2026-11-24")
    until(lambda: len(listener.events) == len(today))
    assert listener.events == today != log(api)


def test_only_what_fits_comes(api: Api, listen: Listen):
    listener = listen(user_id="alice", event_type="SessionCreated")
    for user in ("alice", "bob", "alice"):
        api.sign_in(user)
    wanted = log(api, "user_id=alice&event_type=SessionCreated")
    until(lambda: len(listener.events) == 2)
    assert listener.events == wanted


def test_many_writers_and_listeners_none_misses_anything(api: Api, listen: Listen):
    listeners = [listen() for _ in range(5)]
    for _ in range(10):
        api.at_once([("POST", f"/api/users/user-{uuid4()}/disable", ADMIN) for _ in range(10)])
    whole = [event["id"] for event in paged(api)]
    for listener in listeners:
        until(lambda: len(listener.events) == len(whole))  # noqa: B023
        assert [event["id"] for event in listener.events] == whole


def paged(api: Api) -> list[Event]:
    settled(api)
    pages = [api.get(f"/api/audit?limit=100&page={page}", ADMIN).json()["events"] for page in range(1, 5)]
    return [event for page in pages for event in page][::-1]


def test_a_process_that_does_not_follow_the_log_tells_the_same(open_api: OpenApi, api: Api, listen: Listen):
    until(lambda: api.service.follower.is_leading)
    other = open_api(streams=True)
    listener, there = listen(), Listener(other, PATH, ADMIN, {})
    api.sign_in("alice")
    other.sign_in("bob")
    until(lambda: len(listener.events) == len(there.events) == 4)
    there.hang_up()
    assert not other.service.follower.is_leading
    assert listener.events == there.events == log(api)


def test_who_may_not_see_people_is_not_told_of_them(api: Api, listen: Listen):
    listener = listen(bearer(api.key(Scope.AUDIT_READ)[1]), user_id="alice@example.com")
    api.sign_in("alice@example.com", ip_address="203.0.113.7")
    until(lambda: len(listener.events) == 2)
    assert b"alice@example.com" not in listener.body and b"203.0.113.7" not in listener.body


@pytest.mark.parametrize("event_id", ["x", "", "00000000-0000-7000-8000-000000000000"])
def test_an_unknown_last_event_is_an_error(api: Api, event_id: str):
    assert told(api.get("/api/audit/stream", {**ADMIN, "Last-Event-ID": event_id})) == (400, "unknown-event")


def test_silence_is_broken_by_comments(api: Api, listen: Listen, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(audit_stream, "HEARTBEAT_S", 0.1)
    listener = listen()
    until(lambda: listener.body.count(b":\n\n") > 2)
    assert listener.events == []


def test_a_look_that_fails_is_not_the_last_one(api: Api, listen: Listen, monkeypatch: pytest.MonkeyPatch):
    def broken(connection: Any) -> Any:
        failed.append(connection)
        raise RuntimeError("broken")

    failed: list[Any] = []
    listener = listen()
    with monkeypatch.context() as patched:
        patched.setattr(audit_streams, "freshness", broken)
        until(lambda: len(failed) > 1)
    api.sign_in("alice")
    until(lambda: len(listener.events) == 2)


def test_a_revoked_key_ends_the_stream(api: Api, listen: Listen):
    key, secret = api.key(Scope.AUDIT_READ)
    listener, other = listen(bearer(secret)), listen()
    assert api.revoke_key(key)
    until(lambda: listener.is_over)
    assert not other.is_over


def test_a_revoked_key_ends_a_stream_that_nobody_reads(api: Api, listen: Listen):
    key, secret = api.key(Scope.AUDIT_READ)
    stalled, other = listen(bearer(secret), takes=False), listen(takes=False)
    assert api.revoke_key(key)
    until(lambda: stalled.is_over)
    assert stalled.answering.result() is None
    assert not other.is_over


def test_what_nobody_takes_is_not_offered_for_ever(api: Api, listen: Listen, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(long_answers, "STALLED_S", 0.1)
    stalled = listen(takes=False)
    until(lambda: stalled.is_over)


def test_streams_are_bounded_and_who_hangs_up_makes_room(api: Api, listen: Listen):
    first, *_ = [listen() for _ in range(audit_streams.MOST_EACH)]
    assert told(api.get("/api/audit/stream", ADMIN)) == (503, "busy")
    listen(bearer(api.key(Scope.AUDIT_READ)[1]))
    first.hang_up()
    until(lambda: first.is_over)
    assert listen().status == 200


def test_all_end_when_the_application_does(api: Api, listen: Listen):
    listeners = [listen(takes=takes) for takes in (True, True, False)]

    async def close() -> None:
        api.app.state.audit_streams.close()

    api.ask(close)
    until(lambda: all(listener.is_over for listener in listeners))
    assert [listener.answering.result() for listener in listeners] == [None, None, None]


def test_who_listens_is_recorded_once_an_hour(api: Api, listen: Listen):
    listen(user_id="alice")

    def recorded() -> list[tuple[str, int]]:
        with api.service.database.reading() as connection:
            return [(json.loads(row.filter)["call"], row.reads) for row in accesses(connection)]

    assert recorded() == [("stream", 1)]
    api.clock.advance(3_600)
    until(lambda: len(recorded()) == 2)
    assert recorded() == [("stream", 1), ("stream", 1)]


def test_who_cannot_be_recorded_hears_nothing(api: Api):
    with api.service.database.transaction() as connection:
        connection.execute(text("DROP TABLE audit_access"))
    assert told(api.get("/api/audit/stream", ADMIN)) == (503, "store-unavailable")
