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
from sqlalchemy import Connection

from domain.events import ClientDetails, Fact, Sealed
from store.clock import to_micros
from store.recorder import Entry
from store.sealing import codec, stored_state, unreadable
from store.stored_rows import StoredRow, next_page


def plain_pages(connection: Connection, after: int, until: int, size: int) -> Iterator[Sequence[StoredRow]]:
    """Rows of the log behind `after` up to `until`, in order, in lists of at most `size`."""
    while after < until:
        page = next_page(connection, after, until, size=size)
        if not page:
            return
        yield page
        after = page[-1][0]


def plain_entries(rows: Sequence[StoredRow]) -> list[Entry]:
    """Raises the mapper's error for a state that cannot be read; a field that is missing shows when it is used."""
    return [Entry(row[0], row[3], _fact(*row)) for row in rows]


def micros(moment: datetime | int) -> int:
    return moment if isinstance(moment, int) else to_micros(moment)


def octets(value: bytes | str) -> bytes:
    return b64decode(value) if isinstance(value, str) else value


def sealed(value: Sealed | ClientDetails | str | None) -> bytes | None:
    """The ciphertext; nothing of what is not sealed."""
    if isinstance(value, str):
        return b64decode(value)
    return value.ciphertext if isinstance(value, Sealed) else None


def _fact(_: int, stream: bytes, version: int, __: int, topic: str, stored: bytes) -> Fact:
    cls, plain = _classes(topic)
    try:
        state = stored_state(cls, stored)
    except Exception as error:
        raise unreadable(topic, UUID(bytes=stream), version, error) from error
    state["originator_id"], state["originator_version"] = stream, version
    fact = object.__new__(plain)
    _set(fact, "__dict__", state)
    return fact


_set = object.__setattr__  # facts are frozen


@cache
def _classes(topic: str) -> tuple[type[Fact], type[Fact]]:
    """The class of a kind of fact, and the same kind in its plain form: what may be absent is None by its class."""
    cls = resolve_topic(topic)
    absent: dict[str, Any] = {name: None for name, _, _, may_be_absent in codec(cls) if may_be_absent}
    metaclass: Any = type(cls)
    return cls, cast(type[Fact], metaclass(cls.__name__, (cls,), {**absent, "__module__": __name__}))
