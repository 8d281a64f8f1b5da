"""Who was erased, as the log says, also where the read model is behind it."""

from uuid import UUID

from sqlalchemy import select

from domain.events import UserErased
from projections.sessions import SessionsProjection
from store.database import Database, store_errors
from store.recorder import tracked
from store.schema import events

_folded = select(SessionsProjection().erasures.c.stream)
_in_the_log = select(events.c.stream).where(events.c.topic == UserErased.TOPIC)


def erased_streams(database: Database) -> list[UUID]:
    """Every user who was ever erased, in no order."""
    with store_errors(), database.reading() as connection:
        position = tracked(connection, SessionsProjection.name) or 0
        later = _in_the_log.where(events.c.position > position)
        return [*connection.execute(_folded).scalars(), *connection.execute(later).scalars()]


def erased_in_the_log(database: Database) -> list[UUID]:
    """The same without asking the read model, which takes a look at every event."""
    with store_errors(), database.reading() as connection:
        return [*connection.execute(_in_the_log).scalars()]
