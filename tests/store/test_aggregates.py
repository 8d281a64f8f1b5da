"""Users as the log has them: many in two queries, and those in memory within a bound."""

from uuid import uuid4

import pytest

from api.service import Service
from domain.session import Limits
from domain.user import User
from store.aggregates import AggregateCache, read_aggregates
from tests.conftest import OpenService
from tests.store.given import Caller, result, user


def test_many_users_are_read_as_the_library_reads_each(open_service: OpenService):
    service = open_service(Limits(touch_interval=0))
    caller = Caller(service)
    sessions = {name: result(caller.creates(name)) for name in ("alice", "bob", "carol")}
    for future in [caller.touches(sessions["bob"], "bob") for _ in range(600)]:
        result(future)
    result(caller.disables("carol"))
    service.snapshotter.close()  # so that bob's is written

    read = read_aggregates(service.database, service.mapper, [*map(caller.stream, sessions), caller.stream("nobody")])
    assert read.keys() == {*map(caller.stream, sessions)}
    for name in sessions:
        found, expected = read[caller.stream(name)], user(service, name)
        assert (found.id, found.version, found.state()) == (expected.id, expected.version, expected.state())


def test_nobody_is_read_for_no_streams(service: Service):
    assert read_aggregates(service.database, service.mapper, []) == {}


def some_user(service: Service, name: str, sessions: int) -> User:
    caller = Caller(service)
    for future in [caller.creates(name) for _ in range(sessions)]:
        result(future)
    return user(service, name)


def test_the_least_recently_used_make_room(service: Service, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("store.aggregates.CACHED_SESSIONS", 5)
    alice, bob, carol = (some_user(service, name, 2) for name in ("alice", "bob", "carol"))
    cache = AggregateCache()
    cache.put(alice)
    cache.put(bob)
    assert cache.take([alice.id]) == {alice.id: alice}
    cache.put(alice)
    cache.put(carol)
    assert cache.take([alice.id, bob.id, carol.id]) == {alice.id: alice, carol.id: carol}


def test_who_was_taken_out_or_cleared_away_takes_no_room(service: Service, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("store.aggregates.CACHED_SESSIONS", 4)
    alice, bob = some_user(service, "alice", 3), some_user(service, "bob", 3)
    cache = AggregateCache()
    cache.put(alice)
    cache.take([alice.id, uuid4()])
    cache.put(bob)
    assert cache.take([bob.id]) == {bob.id: bob}
    cache.put(alice)
    cache.clear()
    cache.put(bob)
    assert cache.take([alice.id, bob.id]) == {bob.id: bob}


def test_users_without_sessions_are_bounded_too(service: Service, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("store.aggregates.CACHED_SESSIONS", 2)
    names = ["alice", "bob", "carol"]
    caller, cache = Caller(service), AggregateCache()
    for name in names:
        result(caller.disables(name))
        cache.put(user(service, name))
    assert list(cache.take([caller.stream(name) for name in names])) == [caller.stream(n) for n in names[1:]]
