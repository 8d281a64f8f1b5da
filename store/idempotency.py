"""Kept answers: the first answer to an idempotency key, sealed under its user's key, for 24 hours.

The row is written in the append transaction. When the session ends its answer goes, and the row stays to say so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, delete, insert, select

from domain.aggregate import Acting, Context
from domain.errors import IdempotencyKeyReused, IdempotentSessionEnded
from domain.events import Fact, SessionRevoked
from domain.ledger import Claim
from domain.session import Session
from domain.user import User
from store.bulk import update_many
from store.clock import to_micros
from store.keys import KeyStore
from store.schema import idempotency
from store.sealing import seal, unseal

KEEP = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What an idempotency key led to. `answer` is sealed once the row is stored; None when the session has ended."""

    key: bytes
    fingerprint: bytes
    stream: UUID
    session_id: UUID
    answer: bytes | None
    created_at: int
    is_sealed: bool = True

    @classmethod
    def first(cls, claim: Claim, stream: UUID, session: Session) -> "KeptAnswer":
        created_at = to_micros(session.created_at)
        return cls(claim.key, claim.fingerprint, stream, session.session_id, claim.answer(session), created_at, False)

    def replay(self, claim: Claim, user: Acting | None, context: Context, keys: KeyStore) -> bytes:
        """The first answer again. Raises when the request is another one, the session ended or its user is erased."""
        if isinstance(user, User):
            user.refuse_erased()
        if self.fingerprint != claim.fingerprint:
            raise IdempotencyKeyReused("This idempotency key came with another request before.")
        is_active = isinstance(user, User) and user.is_active(self.session_id, context)
        if self.answer is None or not is_active:
            raise IdempotentSessionEnded("The session that this idempotency key created has ended.")
        return (
            unseal(keys.ensure([self.stream])[self.stream], self.answer, self._place) if self.is_sealed else self.answer
        )

    def sealed(self, keys: Mapping[UUID, bytes]) -> "KeptAnswer":
        if self.is_sealed or self.answer is None:
            return self
        return replace(self, answer=seal(keys[self.stream], self.answer, self._place), is_sealed=True)

    @property
    def _place(self) -> bytes:
        return b"idempotency" + self.stream.bytes + self.key


def find_kept(connection: Connection, keys: Sequence[bytes], now: datetime) -> dict[bytes, KeptAnswer]:
    """The answers that are kept for these keys."""
    fresh = idempotency.c.created_at > to_micros(now - KEEP)
    rows = connection.execute(select(idempotency).where(idempotency.c.key.in_(keys), fresh))
    return {row[0]: KeptAnswer(*row) for row in rows}


_FORGET = update_many(idempotency.c.session_id, idempotency.c.answer)


def keep(connection: Connection, answers: Sequence[KeptAnswer]) -> None:
    """Keep first answers, in the place of ones that are too old to count."""
    if answers:
        connection.execute(delete(idempotency).where(idempotency.c.key.in_([answer.key for answer in answers])))
        columns = ("key", "fingerprint", "stream", "session_id", "answer", "created_at")
        connection.execute(insert(idempotency), [{name: getattr(a, name) for name in columns} for a in answers])


def forget_ended(connection: Connection, facts: Sequence[Fact]) -> None:
    """Give no token out again whose session these facts end."""
    _FORGET.run(connection, [(None, fact.session_id) for fact in facts if isinstance(fact, SessionRevoked)])


def forget_old(connection: Connection, now: datetime) -> int:
    """Delete what is too old to count; how many rows."""
    return connection.execute(delete(idempotency).where(idempotency.c.created_at <= to_micros(now - KEEP))).rowcount
