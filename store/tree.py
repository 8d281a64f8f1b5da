"""The log's Merkle tree as it is kept: tiles of 256 hashes, so that to go on and to prove takes a few rows.

Tier 0 has the hashes of the leaves, tier 1 those of full tiles of tier 0, and so on; the last tile of a tier may be
short. Disposable: it is made of the log again, and whether it tells the truth shows in what it leads to.
"""

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite

from store.database import Database
from store.log import leaf, pages
from store.merkle import HASH_BYTES, complete_root, leaf_hash
from store.schema import tiles

TIER = 8  # levels of the tree
WIDTH = 1 << TIER
TILE_BYTES = WIDTH * HASH_BYTES
PAGE = 32 * WIDTH


class TreeIncomplete(Exception):
    """A hash that should be kept is not there."""


class Tree:
    """The tree as a connection sees it. Tiles that were read are kept in memory: use one for one proof."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._tiles: dict[tuple[int, int], bytes] = {}

    def subtree(self, level: int, number: int) -> bytes:
        """The hash of a complete subtree, as `store.merkle` asks for it. Raises `TreeIncomplete`."""
        tier, within = divmod(level, TIER)
        tile, first = divmod(number << within, WIDTH)
        hashes = self._tile(tier, tile)[first * HASH_BYTES : (first + (1 << within)) * HASH_BYTES]
        if len(hashes) != HASH_BYTES << within:
            raise TreeIncomplete(f"No hash is kept of the subtree {number} of level {level}.")
        return complete_root(split(hashes))

    def _tile(self, tier: int, number: int) -> bytes:
        if (tier, number) not in self._tiles:
            self._tiles[tier, number] = read_tile(self._connection, tier, number)
        return self._tiles[tier, number]


def split(hashes: bytes) -> list[bytes]:
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]


def read_tile(connection: Connection, tier: int, number: int) -> bytes:
    """Up to 256 hashes; none where there is no such tile."""
    query = select(tiles.c.hashes).where(tiles.c.tier == tier, tiles.c.number == number)
    return bytes(connection.execute(query).scalar() or b"")


def grow(database: Database, until: int, pause: Callable[[], None] = lambda: None) -> None:
    """Keep the hashes of the log's leaves up to the position `until`, page by page, with a pause after each."""
    with database.reading() as connection:
        size = _size(connection)
    while size < until:
        end = min(until, size - size % PAGE + PAGE)
        with database.reading() as connection:
            hashes = [leaf_hash(leaf(record)) for page in pages(connection, size, end) for record in page]
        if len(hashes) != end - size:
            raise TreeIncomplete(f"The log has a gap between {size} and {end}.")
        with database.transaction() as connection:
            _one_at_a_time(connection)
            if _size(connection) == size:
                _extend(connection, 0, size, hashes)
            size = _size(connection)
        pause()


def discard(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(delete(tiles))


def _size(connection: Connection) -> int:
    """How many leaves are kept."""
    last = select(tiles.c.number, tiles.c.hashes).where(tiles.c.tier == 0).order_by(tiles.c.number.desc()).limit(1)
    found = connection.execute(last).first()
    return found.number * WIDTH + len(found.hashes) // HASH_BYTES if found else 0


def _extend(connection: Connection, tier: int, size: int, hashes: Sequence[bytes]) -> None:
    """Add hashes to a tier that has `size` of them, and those of the tiles that they fill to the next one."""
    first, filled = divmod(size, WIDTH)
    begun = read_tile(connection, tier, first)[: filled * HASH_BYTES] if filled else b""
    together = begun + b"".join(hashes)
    parts = [together[at : at + TILE_BYTES] for at in range(0, len(together), TILE_BYTES)]
    _put(connection, [{"tier": tier, "number": first + n, "hashes": part} for n, part in enumerate(parts)])
    if full := [complete_root(split(part)) for part in parts if len(part) == TILE_BYTES]:
        _extend(connection, tier + 1, first, full)


def _put(connection: Connection, rows: Sequence[dict[str, object]]) -> None:
    insert = (insert_sqlite if connection.dialect.name == "sqlite" else insert_postgresql)(tiles)
    connection.execute(
        insert.on_conflict_do_update(index_elements=["tier", "number"], set_={"hashes": insert.excluded.hashes}), rows
    )


def _one_at_a_time(connection: Connection) -> None:
    """On SQLite the write lock sees to it."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('session-ledger: tiles'))")
