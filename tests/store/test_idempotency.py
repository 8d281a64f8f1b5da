"""The same idempotency key again: the first answer, for as long as the session lives and for 24 hours at most."""

import os
import secrets
from collections.abc import Callable
from concurrent.futures import Future
from uuid import uuid4

import pytest
from sqlalchemy import select

from api.service import Service
from domain.errors import IdempotencyKeyReused, IdempotentSessionEnded
from domain.ledger import Claim, Recorded
from domain.session import Limits, Session, Timeouts
from domain.user import User
from store.clock import to_micros
from store.idempotency import KeptAnswer, forget_old, keep
from store.schema import idempotency
from tests.clock import ManualClock
from tests.conftest import OpenService
from tests.store.given import (
    Caller,
    assert_consistent,
    at_once,
    facts_of,
    one_batch,
    refusal,
    request,
    result,
    topics,
    until,
    user,
    whole,
)

DAY = 24 * 3600
LONG = Limits(Timeouts(3 * DAY, 3 * DAY))


class SignInService:
    """Signs somebody in, and repeats itself when it is in doubt. Each try comes with a token of its own."""

    def __init__(self, caller: Caller, user_id: str = "alice", body: bytes = b"body") -> None:
        self.caller, self.user_id = caller, user_id
        self.key, self.body = os.urandom(32), body
        self.tokens: list[bytes] = []

    def tries(self, *, body: bytes | None = None, user_id: str | None = None) -> "Future[Recorded[Session]]":
        token = secrets.token_urlsafe(32).encode()
        self.tokens.append(token)
        claim = Claim(self.key, self.body if body is None else body, lambda session: token)
        return self.caller.creates(user_id or self.user_id, claim)


@pytest.fixture
def sign_in(open_service: OpenService) -> SignInService:
    return SignInService(Caller(open_service(LONG)))


@pytest.fixture
def service(sign_in: SignInService) -> Service:
    return sign_in.caller.service


def replayed(future: "Future[Recorded[Session]]") -> bytes | None:
    return future.result(20).replay


def kept(service: Service) -> list[tuple[bytes, bytes | None]]:
    """Each key that is kept, and its sealed answer."""
    with service.database.reading() as connection:
        return [tuple(row) for row in connection.execute(select(idempotency.c.key, idempotency.c.answer))]


def test_the_first_try_is_no_replay(sign_in: SignInService, service: Service):
    assert replayed(sign_in.tries()) is None
    assert topics(service) == ["UserEnrolled", "SessionCreated"]


def test_the_same_key_again_gets_the_first_answer_and_records_nothing(sign_in: SignInService, service: Service):
    result(sign_in.tries())
    before = whole(service.database)
    for _ in range(3):
        assert replayed(sign_in.tries()) == sign_in.tokens[0]
    assert whole(service.database) == before


def test_the_first_answer_survives_a_restart(sign_in: SignInService, service: Service, open_service: OpenService):
    result(sign_in.tries())
    service.close()
    sign_in.caller = Caller(open_service(LONG))
    assert replayed(sign_in.tries()) == sign_in.tokens[0]


def test_another_key_makes_another_session(sign_in: SignInService, service: Service):
    result(sign_in.tries())
    assert replayed(SignInService(sign_in.caller).tries()) is None
    assert len(user(service).sessions) == 2


def test_the_same_key_with_another_body_is_refused(sign_in: SignInService, service: Service):
    result(sign_in.tries())
    before = whole(service.database)
    assert isinstance(refusal(sign_in.tries(body=b"another")), IdempotencyKeyReused)
    assert isinstance(refusal(sign_in.tries(body=b"")), IdempotencyKeyReused)
    assert isinstance(refusal(sign_in.tries(body=b"another", user_id="bob")), IdempotencyKeyReused)
    assert whole(service.database) == before
    assert replayed(sign_in.tries()) == sign_in.tokens[0]


# -- twice at once


def test_the_same_key_twice_in_one_batch_makes_one_session(sign_in: SignInService, service: Service):
    with one_batch(service):
        futures = [sign_in.tries() for _ in range(3)]
    assert [replayed(future) for future in futures] == [None, sign_in.tokens[0], sign_in.tokens[0]]
    assert topics(service) == ["UserEnrolled", "SessionCreated"]


def test_the_same_key_with_two_bodies_in_one_batch_makes_one_session(sign_in: SignInService, service: Service):
    with one_batch(service):
        futures = [sign_in.tries(), sign_in.tries(body=b"another")]
    assert replayed(futures[0]) is None
    assert isinstance(refusal(futures[1]), IdempotencyKeyReused)
    assert len(user(service).sessions) == 1


def test_the_same_key_for_two_users_in_one_batch_makes_one_session(sign_in: SignInService, service: Service):
    with one_batch(service):
        futures = [sign_in.tries(), sign_in.tries(body=b"another", user_id="bob")]
    assert replayed(futures[0]) is None
    assert isinstance(refusal(futures[1]), IdempotencyKeyReused)
    assert topics(service, "bob") == []
    assert_consistent(service)


def test_a_session_that_ends_in_the_batch_of_its_sign_in_is_not_given_out_again(
    sign_in: SignInService, service: Service
):
    with one_batch(service):
        futures = [sign_in.tries(), sign_in.caller.disables(), sign_in.tries()]
    assert replayed(futures[0]) is None
    assert isinstance(refusal(futures[2]), IdempotentSessionEnded)


def test_two_services_at_once_make_one_session(sign_in: SignInService, service: Service, open_service: OpenService):
    callers = [sign_in.caller, Caller(open_service(LONG))]
    for turn in range(15):
        signing = [SignInService(caller, f"user {turn}") for caller in callers]
        signing[1].key = signing[0].key
        futures = at_once(*(each.tries for each in signing))
        replays = [replayed(future) for future in futures]
        assert sorted(replays, key=bool) in ([None, signing[0].tokens[0]], [None, signing[1].tokens[0]])
        assert topics(service, f"user {turn}") == ["UserEnrolled", "SessionCreated"]
    assert_consistent(service)


def test_a_key_that_another_service_used_meanwhile_for_another_user_is_refused(
    sign_in: SignInService, service: Service, open_service: OpenService
):
    result(sign_in.caller.creates("bob"))
    other = open_service(LONG)
    theirs = KeptAnswer(sign_in.key, b"another", uuid4(), uuid4(), b"sealed", to_micros(other.clock.now()))
    disabling = facts_of(other, "bob", User.disable)
    with other.recorder.appending() as held:
        overtaken = sign_in.tries()
        until(overtaken.running)
        held.insert(disabling, other.clock.micros())
        keep(held.connection, [theirs])
    assert isinstance(refusal(overtaken), IdempotencyKeyReused)
    assert kept(service) == [(sign_in.key, b"sealed")]
    assert topics(service) == []


# -- the session has ended


def test_a_revoked_session_is_not_given_out_again(sign_in: SignInService, service: Service):
    session = result(sign_in.tries())
    result(sign_in.caller.revokes(session))
    assert isinstance(refusal(sign_in.tries()), IdempotentSessionEnded)
    assert kept(service) == [(sign_in.key, None)]


def test_a_session_that_another_service_revoked_is_not_given_out_again(
    sign_in: SignInService, open_service: OpenService
):
    session = result(sign_in.tries())
    result(Caller(open_service(LONG)).revokes(session))
    assert isinstance(refusal(sign_in.tries()), IdempotentSessionEnded)


@pytest.mark.parametrize("passed", [1800, 1801])
def test_an_expired_session_is_not_given_out_again(open_service: OpenService, clock: ManualClock, passed: int):
    sign_in = SignInService(Caller(open_service(Limits(Timeouts(1800, 1800)))))
    result(sign_in.tries())
    clock.advance(1799)
    assert replayed(sign_in.tries()) == sign_in.tokens[0]
    clock.advance(passed - 1799)
    assert isinstance(refusal(sign_in.tries()), IdempotentSessionEnded)


def test_a_disabled_users_session_is_not_given_out_again_even_when_he_is_enabled(sign_in: SignInService):
    result(sign_in.tries())
    result(sign_in.caller.disables())
    assert isinstance(refusal(sign_in.tries()), IdempotentSessionEnded)
    result(sign_in.caller.service.ledger.enable_user("alice", request()))
    assert isinstance(refusal(sign_in.tries()), IdempotentSessionEnded)


def test_a_refused_try_keeps_nothing(sign_in: SignInService, service: Service):
    result(sign_in.caller.disables())
    assert refusal(sign_in.tries()) is not None
    assert kept(service) == []
    result(service.ledger.enable_user("alice", request()))
    assert replayed(sign_in.tries()) is None


# -- 24 hours


def test_a_key_counts_for_24_hours(sign_in: SignInService, service: Service, clock: ManualClock):
    first = result(sign_in.tries())
    clock.advance(DAY - 1)
    assert replayed(sign_in.tries()) == sign_in.tokens[0]
    clock.advance(1)
    later = sign_in.tries()
    assert replayed(later) is None
    assert result(later).session_id != first.session_id
    assert replayed(sign_in.tries()) == sign_in.tokens[2]
    assert len(kept(service)) == 1


def test_after_24_hours_another_body_is_taken(sign_in: SignInService, clock: ManualClock):
    result(sign_in.tries())
    clock.advance(DAY)
    assert replayed(sign_in.tries(body=b"another")) is None


def test_what_is_too_old_is_deleted(sign_in: SignInService, service: Service, clock: ManualClock):
    result(sign_in.tries())
    clock.advance(DAY - 1)
    fresh = SignInService(sign_in.caller)
    result(fresh.tries())
    clock.advance(1)
    with service.database.transaction() as connection:
        assert forget_old(connection, clock.now()) == 1
    assert [key for key, _ in kept(service)] == [fresh.key]


# -- the token


def test_a_kept_answer_is_sealed_at_its_place(sign_in: SignInService, service: Service):
    result(sign_in.tries())
    other = SignInService(sign_in.caller)
    result(other.tries())
    answers = dict(kept(service))
    assert not [token for token in sign_in.tokens if token in answers[sign_in.key]]
    with service.database.transaction() as connection:
        moved = idempotency.update().where(idempotency.c.key == other.key).values(answer=answers[sign_in.key])
        connection.execute(moved)
    assert refusal(other.tries()) is not None
    assert replayed(sign_in.tries()) == sign_in.tokens[0]


def test_a_token_is_in_no_file(sign_in: SignInService, service: Service, files: Callable[[], bytes]):
    result(sign_in.tries())
    assert replayed(sign_in.tries()) == sign_in.tokens[0]
    assert kept(service)
    service.close()
    written = files()
    assert sign_in.key in written
    assert sign_in.tokens[0] not in written
