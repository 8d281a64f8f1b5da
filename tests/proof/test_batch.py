"""One batch in which everything happens at once: what befalls one command is no other's business."""

from collections.abc import Callable
from typing import Any

from api.service import Service
from domain.aggregate import Context
from domain.errors import UserDisabled as UserIsDisabled
from domain.events import EndReason
from domain.ledger import Decision
from domain.session import Limits
from domain.user import User
from tests.clock import ManualClock
from tests.conftest import OpenService
from tests.store.given import Caller, assert_consistent, one_batch, refusal, result, sign_in, topics, whole


def test_one_is_refused_late_one_is_cancelled_one_conflicts_and_the_others_commit_together(
    service: Service, open_service: OpenService, clock: ManualClock
):
    caller, other = Caller(service), Caller(open_service())
    of_frank = [result(caller.creates(user_id)) for user_id in ("alice", "bob", "frank")][-1]
    alice_was: list[tuple[bool, int]] = []
    bob_was: list[tuple[bool, int]] = []

    with one_batch(service):
        refused = caller.decides(noting(alice_was, lambda user: user.create_session(sign_in(), Limits())), "alice")
        conflicting = caller.decides(noting(bob_was, lambda u: u.revoke_all_sessions(EndReason.REVOKE_ALL)), "bob")
        cancelled = caller.creates("carol")
        created, disabled, revoked = caller.creates("dave"), caller.disables("erin"), caller.revokes(of_frank, "frank")
        nothing = caller.revokes(of_frank, "gina")
        last = caller.decides(once(lambda: disturb(other, clock)), "nobody")
        assert cancelled.cancel()

    assert isinstance(refusal(refused), UserIsDisabled)
    assert result(conflicting) == 2
    assert cancelled.cancelled()
    assert result(created)
    assert [result(future) for future in (disabled, revoked, nothing, last)] == [True, True, False, None]

    assert alice_was == [(False, 1), (True, 1)]
    assert bob_was == [(False, 1), (False, 2)]
    assert topics(service, "alice") == ["UserEnrolled", "SessionCreated", "UserDisabled"]
    assert topics(service, "bob") == ["UserEnrolled", *["SessionCreated"] * 2, *["SessionRevoked"] * 2]
    assert topics(service, "carol") == []
    of_the_batch = [row for row in whole(service.database)[0] if row.recorded_at == clock.micros()]
    assert sorted(row.topic for row in of_the_batch) == sorted(
        [*["SessionRevoked"] * 2, "UserEnrolled", "SessionCreated", "UserEnrolled", "UserDisabled", "SessionRevoked"]
    )
    answered = (conflicting, created, disabled, revoked, nothing, last)
    assert {future.result().position for future in answered} == {of_the_batch[-1].position}
    assert_consistent(service)


def disturb(other: Caller, clock: ManualClock) -> None:
    """What another process does when this one has decided, and has not yet taken the append lock."""
    result(other.disables("alice"))
    result(other.creates("bob"))
    clock.advance(1)


def noting(was: list[tuple[bool, int]], act: Callable[[User], Any]) -> Decision[Any]:
    """A decision that notes whether the user was disabled, and how many sessions he had, each time it is made."""

    def decide(user: User | None, context: Context) -> tuple[User | None, Any]:
        assert user
        was.append((user.disabled is not None, len(user.sessions)))
        return user, act(user)

    return decide


def once(act: Callable[[], None]) -> Decision[None]:
    """A decision about nothing, during the first run of which something else happens."""
    acts = iter([act])

    def decide(user: User | None, context: Context) -> tuple[User | None, None]:
        next(acts, lambda: None)()
        return user, None

    return decide
