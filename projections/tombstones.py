"""The rule for a log that was restored and is older than an erasure: only the keys know of it, by their tombstone."""

from collections.abc import Iterator, Sequence
from uuid import UUID

from sqlalchemy import bindparam, select

from domain.ledger import Request, SessionLedger
from domain.user import TOMBSTONE
from projections.erasures import erased_streams
from store.database import Database, store_errors
from store.keys import LOOKED_UP_AT_ONCE, tombstones
from store.outcome import outcome
from store.schema import events

_KNOWN = select(events.c.stream).where(
    events.c.version == 1, events.c.stream.in_(bindparam("streams", expanding=True))
)  # the first event of each


class EraseUsersOnTombstone:
    """At a start, record `UserErased` for each user of the log who has a tombstone; the policy for it does the rest."""

    def __init__(self, ledger: SessionLedger, log: Database, keys: Database) -> None:
        self._ledger = ledger
        self._log = log
        self._keys = keys

    def run(self, correlation_id: UUID) -> int:
        """How many were erased now. Raises `StoreUnavailable`."""
        unknown = tombstones(self._keys).difference(erased_streams(self._log))
        return sum(self._erase(streams, correlation_id) for streams in self._of_the_log([*unknown]))

    def _of_the_log(self, streams: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
        """Those of them with an event, in portions. Others were erased unknown, or never came to this log."""
        for start in range(0, len(streams), LOOKED_UP_AT_ONCE):
            portion = streams[start : start + LOOKED_UP_AT_ONCE]
            with store_errors(), self._log.reading() as connection:
                yield connection.execute(_KNOWN, {"streams": portion}).scalars().all()

    def _erase(self, streams: Sequence[UUID], correlation_id: UUID) -> int:
        """All at once, so that the writer takes them as one batch."""
        request = Request(TOMBSTONE, correlation_id)
        erasing = [self._ledger.erase_known(stream, request) for stream in streams]
        return sum(outcome(future).result for future in erasing)
