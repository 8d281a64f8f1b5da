"""The story of a user, or of one session of his: what happened to it, in order, from the log alone."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select

from domain.events import Fact, Sealed, SessionCreated
from projections.sessions import SessionsProjection
from store.log import Record, last_position, pages, stream_backwards, stream_pages
from store.sealing import SealingMapper

_COMMON = {field.name for field in fields(Fact)} | {"originator_topic"}


class Cause(NamedTuple):
    """The event that a policy answered."""

    position: int
    topic: str
    event_id: UUID


class Told(NamedTuple):
    """One event of a story."""

    record: Record
    fact: Fact
    cause: Cause | None

    @property
    def session_id(self) -> UUID | None:
        return getattr(self.fact, "session_id", None)

    def details(self) -> dict[str, Any]:
        """What the event says beside who, when and why. Personal data and digests are left out."""
        values = {f.name: getattr(self.fact, f.name) for f in fields(self.fact) if f.name not in _COMMON}
        return {name: value for name, value in values.items() if not isinstance(value, Sealed | bytes | None)}


class Storyteller:
    """Tells stories from one connection, which sees what was committed when a page is read."""

    def __init__(self, connection: Connection, mapper: SealingMapper) -> None:
        self._connection = connection
        self._mapper = mapper
        self._last_cause: Cause | None = None

    def tell(
        self, stream: UUID, session_id: UUID | None = None, *, version: int = 0, after: int = 0, until: int
    ) -> Iterator[Told]:
        """The events of a stream above `version`, at positions behind `after` up to `until`; of one session only."""
        for page in stream_pages(self._connection, stream, version=version, after=after, until=until):
            for record in page:
                fact: Any = self._mapper.to_domain_event(record.stored)
                if session_id is None or getattr(fact, "session_id", None) == session_id:
                    yield Told(record, fact, self._cause(fact))

    def _cause(self, fact: Fact) -> Cause | None:
        """Ends come in groups with one cause, so the last one is remembered."""
        if fact.causation_id is None:
            return None
        if self._last_cause is None or self._last_cause.event_id != fact.causation_id:
            self._last_cause = self._find(fact, fact.causation_id)
        return self._last_cause

    def _find(self, fact: Fact, event_id: UUID) -> Cause | None:
        """A fact about many is alone in the stream that is named as their correlation id; others are his own."""
        places = ((fact.correlation_id, 2), (fact.originator_id, fact.originator_version))
        records = (
            record for stream, version in places for record in stream_backwards(self._connection, stream, version)
        )
        named = event_id.hex.encode()
        for record in records:
            if named in record.state and self._fact(record).event_id == event_id:
                return Cause(record.position, record.topic, event_id)
        return None

    def _fact(self, record: Record) -> Any:
        return self._mapper.to_domain_event(record.stored)


def stream_of_session(connection: Connection, session_id: UUID) -> UUID | None:
    """Whose session it is: asked of the read model, and of the log where that has no row of it, as after an erasure."""
    sessions = SessionsProjection().sessions.c
    known = select(sessions.stream).where(sessions.session_id == session_id)
    stream: UUID | None = connection.execute(known).scalar()
    return stream or _stream_in_log(connection, session_id)


def _stream_in_log(connection: Connection, session_id: UUID) -> UUID | None:
    named = f'"session_id":"{session_id.hex}"'.encode()
    for page in pages(connection, 0, last_position(connection)):
        for record in page:
            if record.topic.endswith(SessionCreated.TOPIC) and named in record.state:
                return record.stream
    return None


def is_known(connection: Connection, stream: UUID) -> bool:
    """Whether the log holds this stream."""
    return next(stream_backwards(connection, stream, 2), None) is not None
