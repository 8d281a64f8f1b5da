"""Ending the sessions of many: of everybody, by one fact, or of those who are named. Each is a stream of one fact."""

from datetime import datetime, timedelta
from typing import Self
from uuid import UUID

from domain.aggregate import Acting, Context
from domain.events import EndReason, SessionRevocationRequested, SessionsInvalidatedBefore

INSTANT = timedelta(microseconds=1)


class GlobalSignOut(Acting):
    """Nobody is signed in any more, but for those who sign in from now on."""

    TOPIC = "GlobalSignOut"
    Created = SessionsInvalidatedBefore  # type: ignore[assignment]

    @classmethod
    def decide(cls, stream: UUID, before: datetime | None, reason: EndReason, context: Context) -> Self:
        """End what was created before `before`, or up to now."""
        return cls.begin(stream, context, before=_not_after_now(before, context), reason=reason)

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
        return cls.begin(stream, context, users=users, before=_not_after_now(before, context), reason=reason)

    def __init__(self, before: datetime, event_id: UUID) -> None:
        self.before = before
        self.requested_by = event_id


def _not_after_now(before: datetime | None, context: Context) -> datetime:
    """A later moment would end what does not exist yet. What exists was created by now, perhaps in this instant."""
    return min(before or context.now + INSTANT, context.now + INSTANT)
