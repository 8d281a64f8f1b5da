"""Facts in their plain form, for folding the whole log: each field is what JSON made of it, converted only when used.

A fold asks each fact for few of its fields, and to make them all costs more than all the rest. So that one definition
of a fold takes both forms, it asks for values by the functions here: what a column of a table takes, whichever form
the fact has.
"""

from base64 import b64decode
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache
from typing import Any, cast
from uuid import UUID

from eventsourcing.utils import resolve_topic
from sqlalchemy import Connection, TextClause, text

from domain.events import ClientDetails, Fact, Sealed
from store.clock import to_micros
from store.recorder import Entry
from store.sealing import codec, stored_state, unreadable


def plain_pages(connection: Connection, after: int, until: int, size: int) -> Iterator[Sequence[Any]]:
    """Records of the log as `store.log.pages` has them, but for the stream: an id as its column takes it."""
    query = _PAGE[connection.dialect.name == "sqlite"]
    while after < until:
        page = connection.execute(query, {"after": after, "until": until, "size": size}).all()
        if not page:
            return
        yield page
        after = page[-1].position


def plain_entries(records: Sequence[Any]) -> list[Entry]:
    """Raises the mapper's error for a state that cannot be read; a field that is missing shows when it is used."""
    return [Entry(row[0], row[3], _fact(*row)) for row in records]


def micros(moment: datetime | int) -> int:
    return moment if isinstance(moment, int) else to_micros(moment)


def octets(value: bytes | str) -> bytes:
    return b64decode(value) if isinstance(value, str) else value


def sealed(value: Sealed | ClientDetails | str | None) -> bytes | None:
    """The ciphertext; nothing of what is not sealed."""
    if isinstance(value, str):
        return b64decode(value)
    return value.ciphertext if isinstance(value, Sealed) else None


def _page_of(stream: str) -> TextClause:
    """A cast keeps the driver from making a `UUID` of each stream, of which a fold needs few."""
    return text(
        f"SELECT position, CAST(stream AS {stream}), version, recorded_at, topic, state FROM events "
        "WHERE position > :after AND position <= :until ORDER BY position LIMIT :size"
    )


_PAGE = {True: _page_of("BLOB"), False: _page_of("TEXT")}


def _fact(_: int, stream: bytes | str, version: int, __: int, topic: str, stored: bytes) -> Fact:
    cls = resolve_topic(topic)
    try:
        state = stored_state(cls, stored)
    except Exception as error:
        raise unreadable(topic, UUID(bytes=stream) if isinstance(stream, bytes) else stream, version, error) from error
    state["originator_id"], state["originator_version"] = stream, version
    fact = object.__new__(_plain(cls))
    fact.__dict__.update(state)
    return fact


@cache
def _plain(cls: type[Fact]) -> type[Fact]:
    """The same kind of fact; what may be absent is None by its class."""
    absent: dict[str, Any] = {name: None for name, _, _, may_be_absent in codec(cls) if may_be_absent}
    metaclass: Any = type(cls)
    return cast(type[Fact], metaclass(cls.__name__, (cls,), {**absent, "__module__": __name__}))
