"""The `User` aggregate: one stream a user, his sessions inside it. Decisions first, then appliers, then helpers.

A decision looks at everything before it emits anything, so one that raises has recorded nothing. An applier never
raises and never judges: history must always replay.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple, Self
from uuid import UUID

from eventsourcing.domain import CanSnapshotAggregate, DomainEvent, event
from eventsourcing.utils import get_topic, register_topic

from domain.aggregate import Acting, Context
from domain.errors import UserDisabled as UserIsDisabled
from domain.errors import UserErased as UserIsErased
from domain.events import (
    ClientDetails,
    EndReason,
    SessionCreated,
    SessionRevoked,
    SessionTouched,
    UserDisabled,
    UserEnabled,
    UserEnrolled,
    UserErased,
)
from domain.session import Invalidation, Limits, Session, shared_timeouts

EXPIRY = "policy:end-sessions-on-timeout"
DISABLED = "policy:revoke-sessions-on-user-disabled"
TOMBSTONE = "policy:erase-users-on-tombstone"
INVALIDATED = "policy:end-sessions-on-sessions-invalidated"


@dataclass(frozen=True, slots=True)
class SignIn:
    """What the sign-in service says of a new session. `token_hash` is SHA-256 of the secret, which stays outside."""

    session_id: UUID
    token_hash: bytes = field(repr=False)
    device: str
    client: ClientDetails | None = field(default=None, repr=False)
    remember_me: bool = False
    idp_name: str | None = None
    auth_time: datetime | None = None
    amr: tuple[str, ...] = ()
    replaces: UUID | None = None


class Disabled(NamedTuple):
    """The `UserDisabled` that is in force."""

    version: int
    at: datetime
    event_id: UUID


class UserSnapshot(CanSnapshotAggregate[UUID], DomainEvent):
    """A user's state at a version, as a plain dict. Disposable: the log alone rebuilds it."""

    TOPIC = "UserSnapshot"
    topic: str
    state: dict[str, Any]

    @classmethod
    def take(cls, aggregate: Any) -> Self:
        return cls(  # type: ignore[call-arg]
            aggregate.id, aggregate.version, aggregate.modified_on, get_topic(type(aggregate)), aggregate.state()
        )

    def mutate(self, _: None) -> Any:
        return User.from_state(self.originator_id, self.originator_version, self.state)


register_topic(UserSnapshot.TOPIC, UserSnapshot)


class User(Acting):
    """A person who signs in. Holds the sessions that have not ended, so it stays small whatever his history."""

    TOPIC = "User"
    Snapshot = UserSnapshot  # type: ignore[assignment]
    Created = UserEnrolled  # type: ignore[assignment]
    SessionCreated = SessionCreated
    SessionTouched = SessionTouched
    SessionRevoked = SessionRevoked
    UserDisabled = UserDisabled
    UserEnabled = UserEnabled
    UserErased = UserErased

    # -- decisions

    @classmethod
    def enrol(cls, stream: UUID, user_id: str, context: Context) -> Self:
        """The ledger first hears of `user_id`."""
        return cls.begin(stream, context, user_id=user_id)

    def create_session(self, sign_in: SignIn, limits: Limits) -> Session:
        """Begin a session; end the one it replaces and, at the cap, the least recently active."""
        self.refuse_erased()
        if self.disabled:
            raise UserIsDisabled("This user is disabled.")
        self.settle()
        if sign_in.replaces in self.sessions:
            self._revoke(sign_in.replaces, EndReason.REPLACED)
        for session in self._least_recently_active(len(self.sessions) - limits.max_sessions + 1):
            self._revoke(session.session_id, EndReason.SESSION_LIMIT)
        timeouts = limits.timeouts(remember_me=sign_in.remember_me)
        self.trigger_event(
            self.SessionCreated,
            session_id=sign_in.session_id,
            token_hash=sign_in.token_hash,
            idle_timeout=timeouts.idle,
            absolute_timeout=timeouts.absolute,
            remember_me=sign_in.remember_me,
            idp_name=sign_in.idp_name,
            auth_time=sign_in.auth_time,
            amr=sign_in.amr,
            device=sign_in.device,
            client=sign_in.client,
        )
        return replace(self.sessions[sign_in.session_id])  # a copy: commands to come change the original

    def touch_session(self, session_id: UUID, limits: Limits) -> bool:
        """Record a use, unless one is recorded within the touch interval; False when the session is not live."""
        self.settle()
        session = self._live(session_id)
        if session is None:
            return False
        idle_s = (self._now - session.last_active_at).total_seconds()
        if idle_s >= limits.touch_interval_of(session.timeouts):
            self.trigger_event(self.SessionTouched, session_id=session_id)
        return True

    def revoke_session(self, session_id: UUID, reason: EndReason) -> bool:
        """End one session; False when there was nothing to end: not his, or ended already."""
        self.settle()
        if self._live(session_id) is None:
            return False
        self._revoke(session_id, reason)
        return True

    def revoke_all_sessions(self, reason: EndReason, *, keep: UUID | None = None) -> int:
        """End every live session but `keep`; the number that this ended."""
        self.settle()
        ending = [] if self.disabled else [session_id for session_id in self.sessions if session_id != keep]
        for session_id in ending:
            self._revoke(session_id, reason)
        return len(ending)

    def revoke_sessions_before(self, before: datetime, reason: EndReason) -> int:
        """End every live session that was created before then; the number that this ended."""
        self.settle()
        ending = [] if self.disabled else [s.session_id for s in self.sessions.values() if s.created_at < before]
        for session_id in ending:
            self._revoke(session_id, reason)
        return len(ending)

    def is_active(self, session_id: UUID, context: Context) -> bool:
        """Whether this is a session of his that is valid then (D3)."""
        session = self._live(session_id)
        return bool(session and session.is_live(context.now) and not session.invalidation(context.invalidations))

    def disable(self) -> bool:
        """Refuse this user from here on; False when he already was."""
        self.refuse_erased()
        if self.disabled:
            return False
        self.settle()
        self.trigger_event(self.UserDisabled)
        return True

    def enable(self) -> bool:
        """Let this user sign in again; what the disable cut off is recorded as ended first, so nothing revives."""
        self.refuse_erased()
        if not self.disabled:
            return False
        self.revoke_disabled_sessions()
        self.trigger_event(self.UserEnabled)
        return True

    def erase(self) -> bool:
        """Forget this user for good; False when he already was. What had ended before is recorded as it ended."""
        if self.erasure:
            return False
        self.settle()
        self.revoke_disabled_sessions()
        self.trigger_event(self.UserErased)
        for session_id in list(self.sessions):
            self._revoke(session_id, EndReason.USER_ERASED, causation_id=self.erasure)
        return True

    def refuse_erased(self) -> None:
        """Raises `UserErased` for whatever can be wished of a user who is forgotten."""
        if self.erasure:
            raise UserIsErased("This user was erased.")

    def revoke_disabled_sessions(self, created_before: int | None = None) -> int:
        """Record the end of the sessions that the disable in force cut off, those below version `created_before`."""
        if not (disabled := self.disabled):
            return 0
        bound = disabled.version if created_before is None else created_before
        ending = [s.session_id for s in self.sessions.values() if s.created_version < bound]
        for session_id in ending:
            self._revoke(
                session_id, EndReason.USER_DISABLED, at=disabled.at, actor=DISABLED, causation_id=disabled.event_id
            )
        return len(ending)

    def settle(self) -> int:
        """Record what time, or an invalidation, has ended. A disabled user's sessions ended by that, whatever since."""
        if self.disabled or not self._is_any_over():
            return 0
        ending = [s for s in self.sessions.values() if self._is_over(s)]
        for session in ending:
            if invalidation := session.invalidation(self._context.invalidations):
                self._revoke_invalidated(session.session_id, invalidation)
            else:
                end = session.deadline
                self._revoke(session.session_id, end.reason, at=end.at, actor=EXPIRY)
        return len(ending)

    # -- appliers

    def __init__(self) -> None:
        self.sessions: dict[UUID, Session] = {}
        self.disabled: Disabled | None = None
        self.erasure: UUID | None = None

    @event(SessionCreated)
    def _begin(self, session_id: UUID, timestamp: datetime, idle_timeout: int, absolute_timeout: int) -> None:
        self.sessions[session_id] = Session(
            session_id, self.version + 1, timestamp, timestamp, shared_timeouts(idle_timeout, absolute_timeout)
        )

    @event(SessionTouched)
    def _use(self, session_id: UUID, timestamp: datetime) -> None:
        if session := self.sessions.get(session_id):
            session.use(timestamp)

    @event(SessionRevoked)
    def _end(self, session_id: UUID) -> None:
        self.sessions.pop(session_id, None)

    @event(UserDisabled)
    def _disable(self, timestamp: datetime, event_id: UUID) -> None:
        self.disabled = Disabled(self.version + 1, timestamp, event_id)

    @event(UserEnabled)
    def _enable(self) -> None:
        self.disabled = None

    @event(UserErased)
    def _erase(self, event_id: UUID) -> None:
        self.erasure = event_id

    # -- helpers

    @property
    def size(self) -> int:
        return len(self.sessions)

    def next_deadline(self, now: datetime) -> datetime | None:
        return min([s.deadline.at for s in self.sessions.values() if s.deadline.at > now], default=None)

    def _revoke(self, session_id: UUID, reason: EndReason, *, at: datetime | None = None, **facts: Any) -> None:
        self.trigger_event(self.SessionRevoked, session_id=session_id, reason=reason, ended_at=at or self._now, **facts)

    def _revoke_invalidated(self, session_id: UUID, by: Invalidation) -> None:
        self._revoke(
            session_id,
            by.reason,
            at=by.at,
            actor=INVALIDATED,
            causation_id=by.event_id,
            correlation_id=by.correlation_id,
        )

    def _is_any_over(self) -> bool:
        """Mostly no, and asked at each command: so it looks at as little as it can."""
        sessions = self.sessions.values()
        if not sessions:
            return False
        return self._now >= min([s.deadline.at for s in sessions]) or (
            bool(self._context.invalidations) and any(map(self._is_over, sessions))
        )

    def _is_over(self, session: Session) -> bool:
        return not session.is_live(self._now) or bool(session.invalidation(self._context.invalidations))

    def _live(self, session_id: UUID) -> Session | None:
        return None if self.disabled else self.sessions.get(session_id)

    def _least_recently_active(self, count: int) -> list[Session]:
        by_activity = sorted(self.sessions.values(), key=lambda s: (s.last_active_at, s.created_version))
        return by_activity[: max(count, 0)]

    def state(self) -> dict[str, Any]:
        """Everything a command needs, in plain JSON values; the inverse of `from_state`."""
        disabled = self.disabled
        return {
            "created_on": self.created_on.isoformat(),
            "modified_on": self.modified_on.isoformat(),
            "disabled": disabled and [disabled.version, disabled.at.isoformat(), disabled.event_id.hex],
            "erasure": self.erasure and self.erasure.hex,
            "sessions": [
                [s.session_id.hex, s.created_version, s.created_at.isoformat(), s.last_active_at.isoformat(),
                 s.timeouts.idle, s.timeouts.absolute]
                for s in self.sessions.values()
            ],
        }  # fmt: skip

    @classmethod
    def from_state(cls, stream: UUID, version: int, state: dict[str, Any]) -> Self:
        when = datetime.fromisoformat
        user = cls.__new__(cls)
        user.__base_init__(stream, version, when(state["created_on"]))
        user.__init__()  # type: ignore[misc]
        user.modified_on = when(state["modified_on"])
        if state["disabled"]:
            at_version, at, event_id = state["disabled"]
            user.disabled = Disabled(at_version, when(at), UUID(event_id))
        user.erasure = UUID(state["erasure"]) if state["erasure"] else None
        for session_id, created_version, created_at, last_active_at, idle, absolute in state["sessions"]:
            user.sessions[UUID(session_id)] = Session(
                UUID(session_id),
                created_version,
                when(created_at),
                when(last_active_at),
                shared_timeouts(idle, absolute),
            )
        return user
