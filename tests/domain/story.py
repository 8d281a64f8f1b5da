"""Given a history, when a decision is asked for, then these facts: the words that the domain's tests are told in.

Moments are seconds since noon. A user's facts are numbered from 1, and the number makes the fact's id.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeVar
from uuid import UUID

from eventsourcing.utils import resolve_topic

from domain import events
from domain.aggregate import Context
from domain.events import (
    ClientDetails,
    EndReason,
    Fact,
    SessionCreated,
    SessionRevoked,
    SessionTouched,
    UserDisabled,
    UserEnabled,
    UserEnrolled,
    UserErased,
)
from domain.session import Limits
from domain.user import DISABLED, EXPIRY, SignIn, User

T = TypeVar("T")

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = 60, 3600, 86400
IDLE, ABSOLUTE = 30 * MINUTE, 12 * HOUR
LIMITS = Limits()

GATEWAY = "key:gateway"
REQUEST = UUID("00000000-0000-7000-8000-00000000c0de")
PHONE = UUID("11111111-1111-4111-8111-111111111111")
LAPTOP = UUID("22222222-2222-4222-8222-222222222222")
TABLET = UUID("33333333-3333-4333-8333-333333333333")
WATCH = UUID("44444444-4444-4444-8444-444444444444")


def stream_of(user_id: str) -> UUID:
    return UUID(bytes=user_id.encode().rjust(16, b"\0"))


ALICE = stream_of("alice")


def moment(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def event_id(version: int, stream: UUID = ALICE) -> UUID:
    return UUID(int=stream.int << 64 | version)


# -- facts, to be numbered by `given` and `then`


def enrolled(user_id: str = "alice", *, at: float = 0, by: str = GATEWAY) -> UserEnrolled:
    return UserEnrolled(**_about(stream_of(user_id), at, by, None), originator_topic="User", user_id=user_id)


def created(
    session_id: UUID, *, at: float = 0, stream: UUID = ALICE, idle: int = IDLE, absolute: int = ABSOLUTE, **told: Any
) -> SessionCreated:
    """The fact that follows from `sign_in` with the same arguments."""
    facts: dict[str, Any] = {name: getattr(sign_in(session_id, **told), name) for name in SIGNED_IN}
    return SessionCreated(
        **_about(stream, at, GATEWAY, None),
        session_id=session_id,
        idle_timeout=idle,
        absolute_timeout=absolute,
        **facts,
    )


def touched(session_id: UUID, *, at: float, by: str = GATEWAY, stream: UUID = ALICE) -> SessionTouched:
    return SessionTouched(**_about(stream, at, by, None), session_id=session_id)


def ended(
    session_id: UUID,
    reason: EndReason,
    *,
    at: float,
    ended_at: float | None = None,
    by: str = GATEWAY,
    cause: UUID | None = None,
    stream: UUID = ALICE,
) -> SessionRevoked:
    when_ended = moment(at if ended_at is None else ended_at)
    return SessionRevoked(**_about(stream, at, by, cause), session_id=session_id, reason=reason, ended_at=when_ended)


def timed_out(
    session_id: UUID, *, at: float, ended_at: float, reason: EndReason = EndReason.INACTIVITY_TIMEOUT, **more: Any
) -> SessionRevoked:
    return ended(session_id, reason, at=at, ended_at=ended_at, by=EXPIRY, **more)


def cut_off(session_id: UUID, *, at: float, disabled_at: float, cause: UUID, **more: Any) -> SessionRevoked:
    """The recorded end of a session that the disable `cause` ended."""
    return ended(session_id, EndReason.USER_DISABLED, at=at, ended_at=disabled_at, by=DISABLED, cause=cause, **more)


def disabled(*, at: float, by: str = GATEWAY, stream: UUID = ALICE) -> UserDisabled:
    return UserDisabled(**_about(stream, at, by, None))


def enabled(*, at: float, by: str = GATEWAY, stream: UUID = ALICE) -> UserEnabled:
    return UserEnabled(**_about(stream, at, by, None))


def erased(*, at: float, by: str = GATEWAY, stream: UUID = ALICE) -> UserErased:
    return UserErased(**_about(stream, at, by, None))


def _about(stream: UUID, at: float, by: str, cause: UUID | None) -> dict[str, Any]:
    return {
        "originator_id": stream,
        "originator_version": 0,
        "timestamp": moment(at),
        "event_id": event_id(0),
        "actor": by,
        "correlation_id": REQUEST,
        "causation_id": cause,
    }


SIGNED_IN = ("token_hash", "device", "client", "remember_me", "idp_name", "auth_time", "amr")


def sign_in(session_id: UUID, **told: Any) -> SignIn:
    return SignIn(session_id, token_hash=session_id.bytes * 2, device=told.pop("device", "Chrome on macOS"), **told)


CLIENT = ClientDetails("192.0.2.7", "Mozilla/5.0 (Macintosh)")


# -- given, when, then


def given(history: Sequence[Fact]) -> User:
    """The user who has this history."""
    user: Any = None
    for fact in numbered(history):
        user = stored_class(fact)(**said(fact)).mutate(user)
    return user


def when(
    history: Sequence[Fact], decide: Callable[[User], T], *, at: float, by: str = GATEWAY, cause: UUID | None = None
) -> tuple[T, list[Fact]]:
    """What the user with this history answers then, and the facts that follow."""
    user = given(history)
    answer = decide(user.acting(context(at, user.version, by=by, cause=cause)))
    return answer, emitted(user)


def then(history: Sequence[Fact], *facts: Fact) -> list[Fact]:
    """The facts that come after this history."""
    return numbered(facts, first=len(history) + 1)


def context(
    at: float,
    version: int,
    *,
    by: str = GATEWAY,
    cause: UUID | None = None,
    stream: UUID = ALICE,
    request: UUID = REQUEST,
) -> Context:
    ids = event_ids(version + 1, stream)
    return Context(moment(at), by, request, cause, lambda: next(ids))


def event_ids(first: int, stream: UUID = ALICE) -> Iterator[UUID]:
    return (event_id(version, stream) for version in count(first))


def numbered(facts: Sequence[Fact], first: int = 1) -> list[Fact]:
    return [
        replace(fact, originator_version=version, event_id=event_id(version, fact.originator_id))
        for version, fact in enumerate(facts, first)
    ]


def emitted(user: User) -> list[Fact]:
    """What the user's last decision emitted."""
    return [plain(fact) for fact in user.collect_events()]


def plain(fact: Any) -> Fact:
    """The same fact as the class that `domain.events` declares: what is stored is a subclass nested in `User`."""
    return getattr(events, fact.TOPIC)(**said(fact))


def stored_class(fact: Fact) -> type[Fact]:
    return resolve_topic(fact.TOPIC)


def said(fact: Any) -> dict[str, Any]:
    return {field.name: getattr(fact, field.name) for field in fields(fact)}
