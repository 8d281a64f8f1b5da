"""The log as it is stored: its rows page by page, and the bytes of each that evidence rests on."""

import struct
from collections.abc import Iterator
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, bindparam, select

from store.schema import events

PAGE = 1_000


class Record(NamedTuple):
    """A row of the log. `recorded_at` in microseconds."""

    position: int
    stream: UUID
    version: int
    recorded_at: int
    topic: str
    state: bytes


_PAGE = (
    select(*(events.c[name] for name in Record._fields))
    .where(events.c.position > bindparam("after"), events.c.position <= bindparam("until"))
    .order_by(events.c.position)
    .limit(bindparam("size"))
)


def pages(connection: Connection, after: int, until: int, size: int = PAGE) -> Iterator[list[Record]]:
    """The records behind `after` up to `until`, in order, in lists of at most `size`: memory stays flat."""
    while after < until:
        rows = connection.execute(_PAGE, {"after": after, "until": until, "size": size})
        page = [Record(*row) for row in rows]
        if not page:
            return
        yield page
        after = page[-1].position


_FIXED = struct.Struct(">IqI16sIqIqI")


def leaf(record: Record) -> bytes:
    """What a leaf of the Merkle tree is the hash of: every column of a record, each behind its length.

    Integers are 8 bytes, a stream its 16, a topic UTF-8, the state as it is stored; lengths are 4 bytes; all of it
    big-endian. So no two records read alike, and a topic or a stream that was changed shows like a changed state.
    Raises `struct.error`, `AttributeError` or `TypeError` for a row whose columns have other types.
    """
    topic = record.topic.encode()
    head = _FIXED.pack(
        8, record.position, 16, record.stream.bytes, 8, record.version, 8, record.recorded_at, len(topic)
    )
    return b"".join((head, topic, len(record.state).to_bytes(4, "big"), record.state))
