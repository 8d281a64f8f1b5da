"""`SessionLedger`: the only door for commands. Each names one user, decides on his aggregate, and is recorded whole."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.persistence import InfrastructureFactory
from eventsourcing.utils import Environment, EnvType

from domain.aggregate import Acting, Context
from domain.api_keys import ApiKey, NewApiKey, stream_of
from domain.bulk_revocation import BulkRevocation, GlobalSignOut
from domain.events import EndReason
from domain.session import Limits, Session
from domain.user import SignIn, User

T = TypeVar("T")
Decision = Callable[[Any, Context], tuple[Acting | None, T]]
"""Takes the aggregate as it is, or None, and says what it is now, and the answer."""


@dataclass(frozen=True, slots=True)
class Request:
    """On whose behalf a command comes: `actor` as in the facts, the id of the request, the fact it answers."""

    actor: str
    correlation_id: UUID
    causation_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """An idempotency key's digest, the digest of the request it came with, and the answer to keep, to be sealed."""

    key: bytes
    fingerprint: bytes
    answer: Callable[[Session], bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Command(Generic[T]):
    """A wish about one stream, mostly a user. `decide` may run again, on newer facts; only its last run counts."""

    stream: UUID
    decide: Decision[T]
    request: Request
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class Recorded(Generic[T]):
    """A command's result, durable up to `position`. `replay` is the kept answer when an idempotency key came again."""

    result: T
    position: int
    replay: bytes | None = field(default=None, repr=False)


class Writer(Protocol):
    """What makes commands durable. The future ends with a `LedgerError` when the wish is refused."""

    def submit(self, command: Command[T]) -> "Future[Recorded[T]]": ...


class SessionLedger(Application[UUID]):
    """The ledger. Reading (repository, notification log) is the library's; writing is the writer's.

    `pseudonym` turns a user id into his stream. Every command returns a future of what was recorded.
    """

    name = "session-ledger"
    is_snapshotting_enabled = True

    def __init__(self, factory: InfrastructureFactory[Any], pseudonym: Callable[[str], UUID], limits: Limits) -> None:
        self._given_factory = factory
        self.pseudonym = pseudonym
        self.limits = limits
        super().__init__()

    def writes_through(self, writer: Writer) -> None:
        """Name the writer. It reads users from this ledger's repository, so it is made after it."""
        self._writer = writer

    def create_session(
        self, user_id: str, sign_in: SignIn, request: Request, claim: Claim | None = None
    ) -> "Future[Recorded[Session]]":
        """Begin a session, enrolling the user when he is new. Raises `UserDisabled` or `UserErased`."""
        stream = self.pseudonym(user_id)

        def decide(user: User | None, context: Context) -> tuple[User, Session]:
            user = user or User.enrol(stream, user_id, context)
            return user, user.create_session(sign_in, self.limits)

        return self._writer.submit(Command(stream, decide, request, claim))

    def touch_session(self, stream: UUID, session_id: UUID, request: Request) -> "Future[Recorded[bool]]":
        """Record a use, coalesced; False when the session is not live."""
        return self._to_known(stream, request, False, lambda user: user.touch_session(session_id, self.limits))

    def revoke_session(
        self, stream: UUID, session_id: UUID, reason: EndReason, request: Request
    ) -> "Future[Recorded[bool]]":
        """End one session; False when there was nothing left to end."""
        return self._to_known(stream, request, False, lambda user: user.revoke_session(session_id, reason))

    def sign_out(self, stream: UUID, session_id: UUID, request: Request) -> "Future[Recorded[bool]]":
        """End the session at its user's own wish; False when it had ended."""
        return self.revoke_session(stream, session_id, EndReason.SIGNED_OUT, request)

    def revoke_all_sessions(
        self, stream: UUID, reason: EndReason, request: Request, *, keep: UUID | None = None
    ) -> "Future[Recorded[int]]":
        """End every live session of the user, but `keep`, in one append; the number that this ended."""
        return self._to_known(stream, request, 0, lambda user: user.revoke_all_sessions(reason, keep=keep))

    def invalidate_sessions(
        self, before: datetime | None, reason: EndReason, request: Request
    ) -> "Future[Recorded[datetime]]":
        """Sign everybody out whose session began before then, or before now: refused from the commit on. The moment."""
        stream = request.correlation_id

        def decide(done: GlobalSignOut | None, context: Context) -> tuple[GlobalSignOut, datetime]:
            signed_out = done or GlobalSignOut.decide(stream, before, reason, context)
            return signed_out, signed_out.before

        return self._writer.submit(Command(stream, decide, request))

    def request_revocation(
        self, users: tuple[UUID, ...], before: datetime | None, reason: EndReason, request: Request
    ) -> "Future[Recorded[BulkRevocation]]":
        """Note that these users' sessions from before then, or before now, are to end: a policy does it."""
        stream = request.correlation_id

        def decide(noted: BulkRevocation | None, context: Context) -> tuple[BulkRevocation, BulkRevocation]:
            job = noted or BulkRevocation.decide(stream, users, before, reason, context)
            return job, job

        return self._writer.submit(Command(stream, decide, request))

    def revoke_sessions_before(
        self, stream: UUID, before: datetime, reason: EndReason, request: Request
    ) -> "Future[Recorded[int]]":
        """End the user's sessions that were created before then; the number that this ended."""
        return self._to_known(stream, request, 0, lambda user: user.revoke_sessions_before(before, reason))

    def disable_user(self, user_id: str, request: Request) -> "Future[Recorded[bool]]":
        """Refuse the user from the commit on, also one never heard of before; False when he already was disabled.

        Raises `UserErased`.
        """
        stream = self.pseudonym(user_id)

        def decide(user: User | None, context: Context) -> tuple[User, bool]:
            user = user or User.enrol(stream, user_id, context)
            return user, user.disable()

        return self._writer.submit(Command(stream, decide, request))

    def enable_user(self, user_id: str, request: Request) -> "Future[Recorded[bool]]":
        """Let the user sign in again; False when he was not disabled. Revives nothing. Raises `UserErased`."""
        return self._to_known(self.pseudonym(user_id), request, False, User.enable)

    def erase_user(self, user_id: str, request: Request) -> "Future[Recorded[bool]]":
        """Forget the user for good, also one never heard of before; False when he already was.

        His key and whatever else names him is destroyed by the policy that answers the fact.
        """
        stream = self.pseudonym(user_id)

        def decide(user: User | None, context: Context) -> tuple[User, bool]:
            user = user or User.enrol(stream, user_id, context)
            return user, user.erase()

        return self._writer.submit(Command(stream, decide, request))

    def erase_known(self, stream: UUID, request: Request) -> "Future[Recorded[bool]]":
        """The same where only the stream is known; False also for one that the ledger never heard of."""
        return self._to_known(stream, request, False, User.erase)

    def enrol_user(self, user_id: str, request: Request) -> "Future[Recorded[UUID]]":
        """Make sure that the user can be named as an actor; his stream. Raises `UserErased`."""
        stream = self.pseudonym(user_id)

        def decide(user: User | None, context: Context) -> tuple[User, UUID]:
            user = user or User.enrol(stream, user_id, context)
            user.refuse_erased()
            return user, stream

        return self._writer.submit(Command(stream, decide, request))

    def revoke_disabled_sessions(self, stream: UUID, before: int, request: Request) -> "Future[Recorded[int]]":
        """Record the end of the sessions, created below version `before`, that a disable cut off."""
        return self._to_known(stream, request, 0, lambda user: user.revoke_disabled_sessions(before))

    def end_expired_sessions(self, stream: UUID, request: Request) -> "Future[Recorded[int]]":
        """Record the end of the sessions that time has ended; how many."""
        return self._to_known(stream, request, 0, User.settle)

    def create_api_key(self, key: NewApiKey, request: Request) -> "Future[Recorded[datetime]]":
        """Let whoever has the key's secret in; when this was decided."""

        def decide(_: None, context: Context) -> tuple[ApiKey, datetime]:
            return ApiKey.create(key, context), context.now

        return self._writer.submit(Command(stream_of(key.key_id), decide, request))

    def revoke_api_key(self, key_id: str, request: Request) -> "Future[Recorded[bool]]":
        """Refuse the key from the commit on; False when it is unknown or was revoked before."""

        def decide(key: ApiKey | None, context: Context) -> tuple[ApiKey | None, bool]:
            return key, key.revoke() if key else False

        return self._writer.submit(Command(stream_of(key_id), decide, request))

    def _to_known(
        self, stream: UUID, request: Request, otherwise: T, act: Callable[[User], T]
    ) -> "Future[Recorded[T]]":
        def decide(user: User | None, context: Context) -> tuple[User | None, T]:
            return user, act(user) if user else otherwise

        return self._writer.submit(Command(stream, decide, request))

    def construct_env(self, name: str, env: EnvType | None = None) -> Environment:
        """Settings come in as arguments: the process's environment configures nothing here."""
        return Environment(name, {"IS_SNAPSHOTTING_ENABLED": "y", **(env or {})})

    def construct_factory(self, env: Environment) -> InfrastructureFactory[Any]:
        """The given factory, told what one that the library makes would know: it decides whether snapshots are read."""
        self._given_factory.env.update(env)
        return self._given_factory
