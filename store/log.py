"""The log as it is stored: its rows page by page, and the bytes of each that evidence rests on."""

import struct
from collections.abc import Iterator
from typing import NamedTuple
from uuid import UUID

from eventsourcing.persistence import StoredEvent
from sqlalchemy import Connection, bindparam, select

from store.schema import events, head

PAGE = 1_000
LARGEST_LEAF = 65_535
"""Bytes. Bundles of leaves that others make (C2SP tlog-tiles) have lengths of 16 bits (LOG-11)."""


class Record(NamedTuple):
    """A row of the log. `recorded_at` in microseconds."""

    position: int
    stream: UUID
    version: int
    recorded_at: int
    topic: str
    state: bytes

    @property
    def stored(self) -> StoredEvent:
        """As the mapper reads it."""
        return StoredEvent(self.stream, self.version, self.topic, self.state)


_RECORDS = select(*(events.c[name] for name in Record._fields))
_PAGE = (
    _RECORDS.where(events.c.position > bindparam("after"), events.c.position <= bindparam("until"))
    .order_by(events.c.position)
    .limit(bindparam("size"))
)


def pages(connection: Connection, after: int, until: int, size: int = PAGE) -> Iterator[list[Record]]:
    """The records behind `after` up to `until`, in order, in lists of at most `size`: memory stays flat."""
    while after < until:
        rows = connection.execute(_PAGE, {"after": after, "until": until, "size": size})
        page = [*map(Record._make, rows.all())]
        if not page:
            return
        yield page
        after = page[-1].position


_STREAM_PAGE = (
    _RECORDS.where(
        events.c.stream == bindparam("stream"),
        events.c.version > bindparam("version"),
        events.c.position > bindparam("after"),
        events.c.position <= bindparam("until"),
    )
    .order_by(events.c.version)
    .limit(PAGE)
)


def stream_pages(
    connection: Connection, stream: UUID, *, version: int = 0, after: int = 0, until: int
) -> Iterator[list[Record]]:
    """The same for one stream: its records above `version`, at positions behind `after` up to `until`."""
    while True:
        values = {"stream": stream, "version": version, "after": after, "until": until}
        page = [Record(*row) for row in connection.execute(_STREAM_PAGE, values)]
        if page:
            yield page
        if len(page) < PAGE:
            return
        version = page[-1].version


_BACKWARDS = (
    _RECORDS.where(events.c.stream == bindparam("stream"), events.c.version < bindparam("version"))
    .order_by(events.c.version.desc())
    .limit(PAGE)
)


def stream_backwards(connection: Connection, stream: UUID, version: int) -> Iterator[Record]:
    """The records of a stream below `version`, last one first."""
    while page := connection.execute(_BACKWARDS, {"stream": stream, "version": version}).all():
        yield from map(Record._make, page)
        version = page[-1].version


_RECORDED_AT = select(events.c.recorded_at).where(events.c.position == bindparam("position"))


def position_at(connection: Connection, moment: int) -> int:
    """The last position recorded by a moment (microseconds since 1970); 0 before the first.

    Halves the log again and again: times never decrease along positions, so they need no index.
    """
    first, last = 0, last_position(connection)
    while first < last:
        middle = (first + last + 1) // 2
        if recorded_at(connection, middle) <= moment:
            first = middle
        else:
            last = middle - 1
    return first


def recorded_at(connection: Connection, position: int) -> int:
    """When the event at a position was recorded, in microseconds since 1970."""
    return int(connection.execute(_RECORDED_AT, {"position": position}).scalar_one())


def last_position(connection: Connection) -> int:
    """Where the log ends; 0 when it is empty."""
    return int(connection.execute(select(head.c.position)).scalar_one())


_FIXED = struct.Struct(">IqI16sIqIqI")


def leaf(record: Record) -> bytes:
    """What a leaf of the Merkle tree is the hash of: every column of a record, each behind its length.

    Integers are 8 bytes, a stream its 16, a topic UTF-8, the state as it is stored; lengths are 4 bytes; all of it
    big-endian. So no two records read alike, and a topic or a stream that was changed shows like a changed state.
    """
    return leaf_of(record.position, record.stream.bytes, record.version, record.recorded_at, record.topic, record.state)


def leaf_of(position: int, stream: bytes, version: int, recorded_at: int, topic: str, state: bytes) -> bytes:
    """The same of columns as a database has them. Raises one of `WRONGLY_TYPED` for other types than these."""
    encoded = topic.encode()
    if len(stream) != 16:
        raise ValueError("A stream is 16 bytes.")
    head = _FIXED.pack(8, position, 16, stream, 8, version, 8, recorded_at, len(encoded))
    return head + encoded + len(state).to_bytes(4, "big") + state


WRONGLY_TYPED = (struct.error, TypeError, ValueError, AttributeError)


def record_of(leaf: bytes) -> Record:
    """The record that a leaf says. Raises ValueError for bytes that are no leaf."""
    try:
        _, position, _, stream, _, version, _, recorded_at, length = _FIXED.unpack_from(leaf)
        begins = _FIXED.size + length
        topic, state = leaf[_FIXED.size : begins].decode(), leaf[begins + 4 :]
        record = Record(position, UUID(bytes=stream), version, recorded_at, topic, state)
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError("These bytes are no leaf.") from error
    if leaf_of(position, stream, version, recorded_at, topic, state) != leaf:
        raise ValueError("These bytes are no leaf.")
    return record


def leaf_size(topic: str, state: bytes) -> int:
    """The length of an event's leaf in bytes, wherever it will stand."""
    return _FIXED.size + len(topic.encode()) + 4 + len(state)
