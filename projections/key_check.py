"""Whether keys are those of a log: each user's opens his id, which is what he is called; who was erased has none."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from eventsourcing.persistence import MapperDeserialisationError
from sqlalchemy import bindparam, select

from domain.events import UserEnrolled
from projections.erasures import erased_in_the_log
from store.database import Database, store_errors
from store.keys import LOOKED_UP_AT_ONCE, KeyStore
from store.log import Record
from store.schema import events, identities
from store.sealing import NoKeys, SealBroken, SealingMapper, unseal_user_id

NO_KEY = "have no key: what is sealed of them cannot be read"
OTHER_NAME = "are not called what was sealed of them, in the table identities"
OTHER_KEY = "have a key that does not open what was sealed of them"
REVIVED = "are erased and have a key again: a start of the service destroys it before anything is served"
ERASED_SINCE = (
    "were erased since: restore the log alone, with the keys as they are now, and the start erases them again; "
    "or erase them again by hand"
)

_ENROLLED = select(*(events.c[name] for name in Record._fields)).where(events.c.topic == UserEnrolled.TOPIC)

_NAMES = select(identities.c.stream, identities.c.user_id).where(
    identities.c.stream.in_(bindparam("streams", expanding=True))
)


def key_faults(log: Database, keys: KeyStore, erased_since: Collection[UUID]) -> Iterator[str]:
    """A line for each kind of fault: how many users it befalls, and the first of them.

    `erased_since` are the tombstones of other keys, which are newer.
    """
    check = _Check(keys, set(erased_in_the_log(log)), erased_since)
    befallen: Counter[str] = Counter()
    first: dict[str, UUID] = {}
    for page in _enrolled(log):
        streams = [record.stream for record in page]
        rows, names = dict(keys.wrapped(streams)), _names(log, streams)
        for record in page:
            if fault := check.fault(record, rows, names):
                befallen[fault] += 1
                first.setdefault(fault, record.stream)
    for fault, users in befallen.items():
        yield f"{users} users of the log {fault}. The first: {first[fault]}"


def _enrolled(log: Database) -> Iterator[Sequence[Record]]:
    """In portions: memory stays flat."""
    after = 0
    with store_errors(), log.reading() as connection:
        while True:
            portion = _ENROLLED.where(events.c.position > after).order_by(events.c.position).limit(LOOKED_UP_AT_ONCE)
            page = [*map(Record._make, connection.execute(portion).all())]
            if not page:
                return
            yield page
            after = page[-1].position


def _names(log: Database, streams: Sequence[UUID]) -> Mapping[UUID, str]:
    """The ids that answers name these users by."""
    with store_errors(), log.reading() as connection:
        rows = connection.execute(_NAMES, {"streams": streams}).all()
    return {row.stream: row.user_id for row in rows}


@dataclass(frozen=True, slots=True)
class _Check:
    keys: KeyStore
    erased: Collection[UUID]
    erased_since: Collection[UUID]

    def fault(self, enrolled: Record, rows: Mapping[UUID, bytes | None], names: Mapping[UUID, str]) -> str | None:
        """`rows` are the keys of several users, as they are wrapped; None is a tombstone."""
        stream, wrapped = enrolled.stream, rows.get(enrolled.stream)
        if stream in self.erased:
            return REVIVED if wrapped else None
        if stream not in rows:
            return NO_KEY
        if wrapped is None:
            return None  # his tombstone is newer than the log, and the start of a service tells the log
        user_id = self._sealed_id(enrolled, wrapped)
        if user_id is None:
            return OTHER_KEY
        if names.get(stream) != user_id:
            return OTHER_NAME
        return ERASED_SINCE if stream in self.erased_since else None

    def _sealed_id(self, record: Record, wrapped: bytes) -> str | None:
        """The user's id, if it opens and leads to this stream again: master key, key, pepper and log fit together."""
        try:
            key = self.keys.master.open(wrapped, record.stream.bytes)
            enrolled = SealingMapper(NoKeys()).to_domain_event(record.stored)
            user_id = unseal_user_id(key, enrolled) if isinstance(enrolled, UserEnrolled) else ""
        except (SealBroken, MapperDeserialisationError):
            return None
        return user_id if self.keys.pseudonym(user_id) == record.stream else None
