"""Whether keys are those of a log: each user's opens what was sealed of him, and nobody who was erased has one."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from eventsourcing.persistence import MapperDeserialisationError
from sqlalchemy import select

from domain.events import UserEnrolled
from projections.erasures import erased_in_the_log
from store.database import Database, store_errors
from store.keys import LOOKED_UP_AT_ONCE, KeyStore
from store.log import Record
from store.schema import events
from store.sealing import NoKeys, SealBroken, SealingMapper, unseal_user_id

NO_KEY = "have no key: what is sealed of them cannot be read"
OTHER_KEY = "have a key that does not open what was sealed of them"
REVIVED = "are erased and have a key again: a start of the service destroys it before anything is served"
ERASED_SINCE = (
    "were erased since: restore the log alone, with the keys as they are now, and the start erases them again; "
    "or erase them again by hand"
)

_ENROLLED = select(*(events.c[name] for name in Record._fields)).where(events.c.topic == UserEnrolled.TOPIC)


def key_faults(log: Database, keys: KeyStore, erased_since: Collection[UUID]) -> Iterator[str]:
    """A line for each kind of fault: how many users it befalls, and the first of them.

    `erased_since` are the tombstones of other keys, which are newer.
    """
    check = _Check(keys, set(erased_in_the_log(log)), erased_since)
    befallen: Counter[str] = Counter()
    first: dict[str, UUID] = {}
    for page in _enrolled(log):
        rows = dict(keys.wrapped([record.stream for record in page]))
        for record in page:
            if fault := check.fault(record, rows):
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


@dataclass(frozen=True, slots=True)
class _Check:
    keys: KeyStore
    erased: Collection[UUID]
    erased_since: Collection[UUID]

    def fault(self, enrolled: Record, rows: Mapping[UUID, bytes | None]) -> str | None:
        """`rows` are the keys of several users, as they are wrapped; None is a tombstone."""
        stream, wrapped = enrolled.stream, rows.get(enrolled.stream)
        if stream in self.erased:
            return REVIVED if wrapped else None
        if stream not in rows:
            return NO_KEY
        if wrapped is None:
            return None  # his tombstone is newer than the log, and the start of a service tells the log
        if not self._opens(enrolled, wrapped):
            return OTHER_KEY
        return ERASED_SINCE if stream in self.erased_since else None

    def _opens(self, record: Record, wrapped: bytes) -> bool:
        """Whether the user's id opens, and leads to this stream again: master key, key, pepper and log fit together."""
        try:
            key = self.keys.unwrap([(record.stream, wrapped)])[record.stream]
            enrolled = SealingMapper(NoKeys()).to_domain_event(record.stored)
            user_id = unseal_user_id(key, enrolled) if isinstance(enrolled, UserEnrolled) else ""
        except (SealBroken, MapperDeserialisationError):
            return False
        return self.keys.pseudonym(user_id) == record.stream
