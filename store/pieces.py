"""Rehashes the log piece by piece: what each piece comes to, and what is wrong in it.

A piece is a complete subtree, so the pieces' roots make the log's, and that of every size which was signed.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from store.checking import MOST_FINDINGS, Checker, Findings, differing
from store.database import Database
from store.legible import Legible
from store.merkle import Leaves, node_hash, root
from store.raw_log import RawLog, raw_log
from store.sealing import NoKeys, SealingMapper
from store.tree import TIER, WIDTH
from store.versions import Stretch, Versions

LEVEL = 15
PIECE = 1 << LEVEL
BEFORE_ALL = -(2**63)


class Piece(NamedTuple):
    """The leaves behind `start` up to `end`, and the roots of it up to some sizes.

    `roots` has an entry for each size asked for that ends in it, and one for its own end; sizes count from the log's
    beginning. `differing` are the first positions whose kept hash is another one.
    """

    start: int
    end: int
    roots: dict[int, bytes]
    differing: list[int]


class Rest(NamedTuple):
    """What else came of a run of pieces."""

    findings: Findings
    stretches: list[Stretch]


class Run(NamedTuple):
    """Pieces one after another, up to the position `end`; `sizes` are those whose roots are asked for."""

    first: int
    until: int
    end: int
    sizes: Sequence[int]


def runs_of(end: int, sizes: Sequence[int], processes: int) -> list[Run]:
    """The log up to `end` in as many runs as there are processes, if it is long enough."""
    pieces = -(-end // PIECE)
    each = max(1, -(-pieces // processes))
    return [Run(first, min(first + each, pieces), end, sizes) for first in range(0, max(pieces, 1), each)]


def roots_of(pieces: Sequence[Piece]) -> dict[int, bytes]:
    """The root of the log at each size that a piece has a root for."""
    complete: list[tuple[int, bytes]] = []
    roots = {}
    for number, piece in enumerate(pieces):
        if piece.start != number * PIECE:
            break
        for size, within in piece.roots.items():
            joined = within
            for _, left in reversed(complete):
                joined = node_hash(left, joined)
            roots[size] = joined
        level, joined = 0, piece.roots[piece.end]
        while complete and complete[-1][0] == level:
            level, joined = level + 1, node_hash(complete.pop()[1], joined)
        complete.append((level, joined))
    return roots


def pieces_of(database: Database, run: Run, directory: Path) -> Iterator[Piece | Rest]:
    """Each piece, then the rest. Files are put into `directory`."""
    directory.mkdir(exist_ok=True)
    versions = Versions(directory, "stretch")
    with raw_log(database) as log:
        after = run.first * PIECE
        checker = Checker(after, _recorded_at(log, after), Legible(SealingMapper(NoKeys())), versions)
        for number in range(run.first, run.until):
            end = min((number + 1) * PIECE, run.end)
            hashes = [each for page in log.rows(number * PIECE, end) for each in checker.check(page)]
            is_empty = not hashes
            hashes += checker.ends(end)
            yield piece_of(number, hashes, run.sizes, [*islice(_differing(log, number, hashes), MOST_FINDINGS)])
            if is_empty:
                break
        versions.put_aside()
    yield Rest(checker.findings, versions.stretches)


def piece_of(number: int, hashes: list[bytes], sizes: Sequence[int], differing: Sequence[int]) -> Piece:
    """The piece that these leaves are; `differing` are their places."""
    start = number * PIECE
    end = start + len(hashes)
    leaves = Leaves(hashes)
    roots = {size: root(leaves.subtree, size - start) for size in (*sizes, end) if start < size <= end}
    return Piece(start, end, roots, [start + 1 + place for place in differing])


def _differing(log: RawLog, number: int, hashes: list[bytes]) -> Iterator[int]:
    if not log.columns("tiles"):
        return
    first = number << (LEVEL - TIER)
    query = "SELECT number, hashes FROM tiles WHERE tier = 0 AND number >= ? AND number < ?"
    for tile, kept in log.ask(query, first, first + (PIECE >> TIER)):
        begin = int(tile - first) * WIDTH
        part = hashes[begin : begin + WIDTH]
        is_tile = isinstance(tile, int) and isinstance(kept, bytes)
        yield from (begin + place for place in differing(part, kept if is_tile else b"no tile"))


def _recorded_at(log: RawLog, position: int) -> int:
    rows = log.ask("SELECT recorded_at FROM events WHERE position = ?", position)
    return rows[0][0] if rows and isinstance(rows[0][0], int) else BEFORE_ALL
