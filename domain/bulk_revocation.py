"""Ending the sessions of many: of everybody, by one fact, or of those who are named. Each is a stream of one fact."""

from datetime import datetime
from typing import Self
from uuid import UUID

from domain.aggregate import Acting, Context
from domain.events import EndReason, SessionRevocationRequested, SessionsInvalidatedBefore


class GlobalSignOut(Acting):
    """Nobody is signed in any more, but for those who sign in from now on."""

    TOPIC = "GlobalSignOut"
    Created = SessionsInvalidatedBefore  # type: ignore[assignment]

    @classmethod
    def decide(cls, stream: UUID, before: datetime | None, reason: EndReason, context: Context) -> Self:
        """End what was created before `before`, or before now. A moment to come would end what does not exist yet."""
        return cls.begin(stream, context, before=min(before or context.now, context.now), reason=reason)

    def __init__(self, before: datetime) -> None:
        self.before = before


class BulkRevocation(Acting):
    """A job: the sessions of these users are to end. The policy that answers its fact does it."""

    TOPIC = "BulkRevocation"
    Created = SessionRevocationRequested  # type: ignore[assignment]

    @classmethod
    def decide(
        cls, stream: UUID, users: tuple[UUID, ...], before: datetime | None, reason: EndReason, context: Context
    ) -> Self:
        return cls.begin(stream, context, users=users, before=min(before or context.now, context.now), reason=reason)

    def __init__(self, before: datetime) -> None:
        self.before = before
