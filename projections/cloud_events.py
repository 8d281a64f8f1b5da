"""An event of the log as CloudEvents 1.0 tells it (LOG-09), one JSON object a line.

`leaf` is the base64 of the bytes that the Merkle tree is made of, so whoever has a line can check all of it. `position`
is a string, as CloudEvents' integers have 32 bits (LOG-10). `data` is the state as it is stored: what is personal stays
sealed, and what cannot be decoded any more can still be told. `selection` is there where not every event was asked for:
as a query, what was. So a part that was cut out of an export still says that it is none of the whole log.
"""

from binascii import b2a_base64
from functools import lru_cache
from typing import Any

from eventsourcing.utils import get_topic
from pydantic_core import from_json, to_json

from domain.events import Fact
from domain.user import User
from store.clock import from_micros
from store.log import WRONGLY_TYPED, leaf_of
from store.stored_rows import StoredRow

SCHEMAS = "https://session-ledger.dev/schemas/"
TYPES = "dev.session-ledger."
OF_USERS = {get_topic(kind) for kind in vars(User).values() if isinstance(kind, type) and issubclass(kind, Fact)}

_LINE = (
    b'{"specversion":"1.0","id":"%s",%s,"subject":"%s","time":"%s","recordedat":"%s","streamversion":"%d",'
    b'"position":"%d","leaf":"%s","data":%s}\n'
)


class Unreadable(Exception):
    """A stored event that does not say what every event says."""


def unreadable(row: StoredRow, error: Exception) -> Unreadable:
    return Unreadable(f"The event at position {row[0]} cannot be read: {error!r}")


class CloudEvents:
    """Lines of one log; `source` names it, and `selection`, unless it is empty, which of its events there are."""

    def __init__(self, source: str, selection: str = "") -> None:
        self._source = source
        self._selection = {"selection": selection} if selection else {}
        self._kind = lru_cache(maxsize=256)(self._told_kind)

    def __call__(self, rows: list[StoredRow]) -> bytes:
        """A line for each. Raises `Unreadable`, naming the position."""
        return b"".join(map(self._line, rows))

    def _line(self, row: StoredRow) -> bytes:
        position, stream, version, recorded_at, topic, state = row
        try:
            said = from_json(state)
            return _LINE % (
                dashed(said["event_id"]).encode(),
                self._kind(topic, said.get("class_version", 1)),
                _subject(topic, stream, said.get("session_id")),
                moment(said["timestamp"]),
                moment(recorded_at),
                version,
                position,
                b2a_base64(leaf_of(position, stream, version, recorded_at, topic, state), newline=False),
                to_json(said) if b"\n" in state else state,
            )
        except (*WRONGLY_TYPED, KeyError, OverflowError) as error:
            raise unreadable(row, error) from error

    def _told_kind(self, topic: str, class_version: int) -> bytes:
        """What is the same for every event of one kind."""
        attributes = {
            "source": self._source,
            "type": TYPES + topic,
            "dataschema": f"{SCHEMAS}{topic}/{class_version}",
            "datacontenttype": "application/json",
            **self._selection,
        }
        return to_json(attributes)[1:-1]


def _subject(topic: str, stream: bytes, session_id: Any) -> bytes:
    """Whom or what it is about: a user and his session by their public names, or a fact about many by its stream."""
    about = f"{'user' if topic in OF_USERS else 'stream'}/{dashed(stream.hex())}"
    return (f"{about}/session/{dashed(session_id)}" if session_id else about).encode()


def dashed(id: str) -> str:
    """A UUID as it is usually written, of its 32 digits."""
    if len(id) != 32 or not id.isalnum():
        raise ValueError(f"{id!r} is no id")
    return "-".join((id[:8], id[8:12], id[12:16], id[16:20], id[20:]))


@lru_cache(maxsize=1024)
def moment(micros: int) -> bytes:
    """RFC 3339, always with six digits."""
    second, rest = divmod(micros, 1_000_000)
    return b"%s.%06dZ" % (_second(second), rest)


@lru_cache(maxsize=1024)
def _second(second: int) -> bytes:
    return from_micros(second * 1_000_000).strftime("%Y-%m-%dT%H:%M:%S").encode()
