"""The facts of a session's life. Stored for ever: a topic or a field that was ever written never changes its meaning.

Every fact carries `timestamp` (when it happened, UTC), `event_id` (UUIDv7), `actor` (`self`, `user:<stream>`,
`key:<key id>`, `policy:<name>`, or `operator` at the command line), `correlation_id` (the request) and `causation_id`
(the fact that this one answers).
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from eventsourcing.domain import AggregateCreated, AggregateEvent


class EndReason(StrEnum):
    """Why a session ended: the closed list."""

    SIGNED_OUT = "signed_out"
    REVOKED_BY_USER = "revoked_by_user"
    REVOKED_BY_ADMIN = "revoked_by_admin"
    REVOKE_ALL = "revoke_all"
    USER_DISABLED = "user_disabled"
    INACTIVITY_TIMEOUT = "inactivity_timeout"
    ABSOLUTE_TIMEOUT = "absolute_timeout"
    SESSION_LIMIT = "session_limit"
    REPLACED = "replaced"
    USER_ERASED = "user_erased"


@dataclass(frozen=True, slots=True)
class Sealed:
    """Personal data as it is stored: readable only with its user's key."""

    ciphertext: bytes


class ClientDetails(NamedTuple):
    """Where a sign-in came from, as the sign-in service told it. Personal data: stored sealed."""

    ip_address: str | None
    user_agent: str | None


class Fact(AggregateEvent):
    """What every event says beside its own facts."""

    event_id: UUID
    actor: str
    correlation_id: UUID
    causation_id: UUID | None


class UserEnrolled(Fact, AggregateCreated):
    """The ledger first hears of a user. The one place where his id stands in the log, sealed."""

    TOPIC = "UserEnrolled"
    user_id: str | Sealed


class SessionCreated(Fact):
    """A user signed in. The timeouts (seconds) that apply are frozen here: a changed setting rewrites no history."""

    TOPIC = "SessionCreated"
    session_id: UUID
    token_hash: bytes
    idle_timeout: int
    absolute_timeout: int
    remember_me: bool
    idp_name: str | None
    auth_time: datetime | None
    amr: tuple[str, ...]
    device: str
    client: ClientDetails | Sealed | None


class SessionTouched(Fact):
    """The session was used, at `timestamp`."""

    TOPIC = "SessionTouched"
    session_id: UUID


class SessionRevoked(Fact):
    """The session ended at `ended_at`: for an end by time its deadline, which may be long before `timestamp`."""

    TOPIC = "SessionRevoked"
    session_id: UUID
    reason: EndReason
    ended_at: datetime


class UserDisabled(Fact):
    """No session of this user is valid from here on, and none may be created."""

    TOPIC = "UserDisabled"


class UserEnabled(Fact):
    """The user may sign in again. It revives nothing."""

    TOPIC = "UserEnabled"


class UserErased(Fact):
    """The user is forgotten for good. His sessions end in the same append, and nothing is decided about him again."""

    TOPIC = "UserErased"


class SessionsInvalidatedBefore(Fact, AggregateCreated):
    """Everybody was signed out at once: no session created before `before` is valid from this fact's commit on."""

    TOPIC = "SessionsInvalidatedBefore"
    before: datetime
    reason: EndReason


class SessionRevocationRequested(Fact, AggregateCreated):
    """The sessions of these users (their streams) that were created before `before` are to end, one user at a time."""

    TOPIC = "SessionRevocationRequested"
    users: tuple[UUID, ...]
    before: datetime
    reason: EndReason


class ApiKeyCreated(Fact, AggregateCreated):
    """A service or an administrator got a key. `name` is for people; `digest` is SHA-256 of the secret."""

    TOPIC = "ApiKeyCreated"
    key_id: str
    name: str
    scopes: tuple[str, ...]
    digest: bytes


class ApiKeyRevoked(Fact):
    """The key opens nothing from here on."""

    TOPIC = "ApiKeyRevoked"
    key_id: str
