"""Facts in their plain form, for folding the whole log: each field is what JSON made of it, converted only when used.

A fold asks each fact for few of its fields, and to make them all costs more than all the rest. So that one definition
of a fold takes both forms, it asks for values by the functions here: what a column of a table takes, whichever form
the fact has.
"""

from base64 import b64decode
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, cast

from eventsourcing.utils import resolve_topic

from domain.events import ClientDetails, Fact, Sealed
from store.clock import to_micros
from store.log import Record
from store.recorder import Entry
from store.sealing import codec, stored_state, unreadable


def plain_entries(records: Sequence[Record]) -> list[Entry]:
    """Raises the mapper's error for a state that cannot be read; a field that is missing shows when it is used."""
    return [Entry(record.position, record.recorded_at, _fact(record)) for record in records]


def micros(moment: datetime | int) -> int:
    return moment if isinstance(moment, int) else to_micros(moment)


def octets(value: bytes | str) -> bytes:
    return b64decode(value) if isinstance(value, str) else value


def sealed(value: Sealed | ClientDetails | str | None) -> bytes | None:
    """The ciphertext; nothing of what is not sealed."""
    if isinstance(value, str):
        return b64decode(value)
    return value.ciphertext if isinstance(value, Sealed) else None


def _fact(record: Record) -> Fact:
    cls = resolve_topic(record.topic)
    try:
        state = stored_state(cls, record.state)
    except Exception as error:
        raise unreadable(record.topic, record.stream, record.version, error) from error
    state["originator_id"], state["originator_version"] = record.stream, record.version
    fact = object.__new__(_plain(cls))
    fact.__dict__.update(state)
    return fact


@cache
def _plain(cls: type[Fact]) -> type[Fact]:
    """The same kind of fact; what may be absent is None by its class."""
    absent: dict[str, Any] = {name: None for name, _, _, may_be_absent in codec(cls) if may_be_absent}
    metaclass: Any = type(cls)
    return cast(type[Fact], metaclass(cls.__name__, (cls,), {**absent, "__module__": __name__}))
