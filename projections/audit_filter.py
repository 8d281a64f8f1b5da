"""What an auditor asks for: the same question to the audit read model, to the log, and to an export."""

import json
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from domain.events import Fact
from store.legible import kinds_of
from store.recorder import Entry


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which events; all that is given must hold. `start` and `end`, both inclusive, are microseconds since 1970.

    They are compared with the time when an event was recorded, which never decreases along the log.
    """

    event_type: str | None = None
    stream: UUID | None = None
    session_id: UUID | None = None
    actor: str | None = None
    start: int | None = None
    end: int | None = None

    def matches(self, entry: Entry) -> bool:
        fact = entry.fact
        return (
            self.event_type in (None, fact.TOPIC)
            and self.stream in (None, fact.originator_id)
            and self.session_id in (None, getattr(fact, "session_id", None))
            and self.actor in (None, fact.actor)
            and (self.start is None or self.start <= entry.recorded_at)
            and (self.end is None or entry.recorded_at <= self.end)
        )

    def given(self) -> dict[str, Any]:
        """What is asked for, by name, without personal data: a user stands in it as his stream."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def selection(self) -> str:
        """The same as a query; empty when every event is asked for."""
        return urlencode(self.given())

    def text(self) -> str:
        """The same text for the same question."""
        return json.dumps(self.given(), default=str, sort_keys=True)


@cache
def event_types() -> tuple[str, ...]:
    """Every type of event that there is."""
    return tuple(sorted({kind.TOPIC for kind in kinds_of(Fact)}))
