"""What every aggregate here has in common: its decisions know who acts, when, and on whose request."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from eventsourcing.domain import Aggregate

from domain.session import Invalidation


@dataclass(frozen=True, slots=True)
class Context:
    """Who acts, when, and on whose request: what every fact of one command shares.

    `invalidations`: whose sessions were ended all at once, by the `SessionsInvalidatedBefore` facts so far.
    """

    now: datetime
    actor: str
    correlation_id: UUID
    causation_id: UUID | None
    new_event_id: Callable[[], UUID]
    invalidations: tuple[Invalidation, ...] = ()


class Acting(Aggregate):
    """An aggregate that acts in a context: nothing in the library reads the wall clock."""

    @classmethod
    def begin(cls, stream: UUID, context: Context, **facts: Any) -> Self:
        """A new aggregate, by its first fact."""
        aggregate = cls._create(
            cls.Created,
            id=stream,
            timestamp=context.now,
            event_id=context.new_event_id(),
            actor=context.actor,
            correlation_id=context.correlation_id,
            causation_id=context.causation_id,
            **facts,
        )
        return aggregate.acting(context)

    def acting(self, context: Context) -> Self:
        """Take on the context of the next command. Time never runs backwards within a stream (F-16)."""
        self._context = context
        self._now = max(context.now, self.modified_on)
        return self

    def trigger_event(self, event_class: type[Any], **facts: Any) -> None:
        """Add the command's context to the facts."""
        context = self._context
        facts.setdefault("actor", context.actor)
        facts.setdefault("correlation_id", context.correlation_id)
        facts.setdefault("causation_id", context.causation_id)
        super().trigger_event(event_class, timestamp=self._now, event_id=context.new_event_id(), **facts)

    @property
    def size(self) -> int:
        """Roughly how much room this takes in memory, in sessions."""
        return 1

    def next_deadline(self, now: datetime) -> datetime | None:
        """When time alone will next change this, so that what was decided before holds no longer."""
        return None
