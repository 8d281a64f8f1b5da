"""A new master key in the place of the old one, while the service runs: every key is wrapped anew (decision 0016).

First the file gets the new key in front of the old one. A barrier then waits for whoever looked at the file before, so
that nothing is wrapped with the old key any more. Then each row is wrapped anew, until a look at all of them finds none
left; at last the old key leaves the file. Killed at any point it is run again and goes on; the service always works.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Column, LargeBinary, Table, bindparam, func, select, update

from store.database import store_errors
from store.failpoints import Failpoint, reach
from store.keys import KeyStore, secrets, user_keys
from store.master_key import MasterKeyError, Ring, new_key, open_with, read_ring, replace
from store.sealing import SealBroken, seal, unseal

PAGE = 500

Report = Callable[[int, int], None]
"""Takes how many keys were looked at, and how many there are."""


@dataclass(frozen=True, slots=True)
class Rotated:
    """How many keys were wrapped anew, and whether an earlier run had begun it."""

    keys: int
    resumed: bool


class _Wrapped(NamedTuple):
    """A row: which key, as it is wrapped, and what that is bound to."""

    id: Any
    wrapped: bytes

    @property
    def bound_to(self) -> bytes:
        return self.id.bytes if isinstance(self.id, UUID) else self.id.encode()


def rotate_master(keys: KeyStore, report: Report = lambda done, total: None) -> Rotated:
    """Rotate; one at a time. Raises `MasterKeyError`, and leaves the old key in the file, when a key does not open.

    Also when the file is not as this run has left it: who has lost the lead takes nothing from whoever has it now.
    """
    path = keys.master.path
    ring = read_ring(path)
    keys.check_ring(ring)
    resumed = len(ring) > 1
    if not resumed:
        ring = (new_key(), *ring)
        replace(path, ring)
    reach(Failpoint.AFTER_NEW_MASTER)
    keys.await_wrapping()
    rotated = 0
    while changed := _pass(keys, ring, report):
        rotated += changed
    reach(Failpoint.BEFORE_OLD_MASTER_LEAVES)
    if read_ring(path) != ring:
        raise MasterKeyError(
            f"{path} was changed by somebody else meanwhile. Nothing was taken out of it: run it again."
        )
    replace(path, ring[:1])
    return Rotated(rotated, resumed)


def _pass(keys: KeyStore, ring: Ring, report: Report) -> int:
    """Look at every key, and wrap those anew that the new master key does not open; how many these were."""
    total, seen, changed = _count(keys), 0, 0
    for table, id_column in ((user_keys, user_keys.c.stream), (secrets, secrets.c.name)):
        for page in _pages(keys, id_column, table.c.wrapped):
            seen += len(page)
            changed += _rewrap(keys, table, id_column, [row for row in page if not _opens(ring[0], row)], ring)
            report(seen, total)
    return changed


def _count(keys: KeyStore) -> int:
    with store_errors(), keys.database.reading() as connection:
        return sum(
            connection.execute(select(func.count(t.c.wrapped)).select_from(t)).scalar_one()
            for t in (user_keys, secrets)
        )


def _pages(keys: KeyStore, id_column: Column[Any], wrapped: Column[bytes]) -> Iterator[Sequence[_Wrapped]]:
    """Every key but those that are destroyed. Who comes meanwhile needs no look: he is wrapped with the new one."""
    query = select(id_column, wrapped).where(wrapped.is_not(None)).order_by(id_column).limit(PAGE)
    after: Any = None
    while True:
        with store_errors(), keys.database.reading() as connection:
            rows = connection.execute(query if after is None else query.where(id_column > after)).all()
        if not rows:
            return
        page = [_Wrapped(*row) for row in rows]
        yield page
        after = page[-1].id


def _opens(master: bytes, row: _Wrapped) -> bool:
    try:
        unseal(master, row.wrapped, row.bound_to)
    except SealBroken:
        return False
    return True


def _rewrap(keys: KeyStore, table: Table, id_column: Column[Any], rows: Sequence[_Wrapped], ring: Ring) -> int:
    """Where a key is still as it was read: one that was destroyed since stays so."""
    if not rows:
        return 0
    same = (id_column == bindparam("id")) & (table.c.wrapped == bindparam("before", type_=LargeBinary))
    change = update(table).where(same).values(wrapped=bindparam("after", type_=LargeBinary))
    values = [{"id": row.id, "before": row.wrapped, "after": _wrapped_anew(row, ring)} for row in rows]
    with store_errors(), keys.database.transaction() as connection:
        connection.execute(change, values)
    reach(Failpoint.AFTER_REWRAP)
    return len(rows)


def _wrapped_anew(row: _Wrapped, ring: Ring) -> bytes:
    try:
        key = open_with(ring[1:], row.wrapped, row.bound_to)
    except SealBroken as error:
        raise MasterKeyError(f"The key {row.id} opens with no key of the file; the old one stays in it.") from error
    return seal(ring[0], key, row.bound_to)
