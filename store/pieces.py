"""Rehashes the log piece by piece, in several processes: what each piece comes to, and what is wrong in it.

A piece is a complete subtree, so the pieces' roots make the log's, and that of every size which was signed.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

from domain.errors import StoreUnavailable
from store.checking import Checker, Findings, differing
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
    """Of the piece with this number: how many leaves are behind its end, and the roots of it up to some sizes.

    `roots` has an entry for each size asked for that ends in it, and one for its own end; sizes count from the log's
    beginning. `differing` are the positions whose kept hash is another one.
    """

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


def rehash(
    database: Database, end: int, sizes: Sequence[int], directory: Path, processes: int, told: Callable[[int], None]
) -> tuple[list[Piece], list[Rest]]:
    """Every piece up to the position `end`; `told` hears of the events done. Files are put into `directory`."""
    runs = _runs(end, sizes, processes)
    if len(runs) == 1:
        return _alone(database, runs[0], directory, told)
    with ExitStack() as stack:
        pipes = [stack.enter_context(_begun(database, run, directory / str(n))) for n, run in enumerate(runs)]
        return _gather(pipes, told)


def roots_of(pieces: Sequence[Piece]) -> dict[int, bytes]:
    """The root of the log at each size that a piece has a root for."""
    complete: list[tuple[int, bytes]] = []
    roots = {}
    for number, piece in enumerate(pieces):
        for size, within in piece.roots.items():
            joined = within
            for _, left in reversed(complete):
                joined = node_hash(left, joined)
            roots[size] = joined
        if piece.end != (number + 1) * PIECE:
            break
        level, joined = 0, piece.roots[piece.end]
        while complete and complete[-1][0] == level:
            level, joined = level + 1, node_hash(complete.pop()[1], joined)
        complete.append((level, joined))
    return roots


def _runs(end: int, sizes: Sequence[int], processes: int) -> list[Run]:
    pieces = -(-end // PIECE)
    each = max(1, -(-pieces // processes))
    return [Run(first, min(first + each, pieces), end, sizes) for first in range(0, max(pieces, 1), each)]


# -- one run


def _pieces(database: Database, run: Run, directory: Path) -> Iterator[Piece | Rest]:
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
            yield piece_of(number, hashes, run.sizes, [*_differing(log, number, hashes)])
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
    return Piece(end, roots, [start + 1 + place for place in differing])


def _differing(log: RawLog, number: int, hashes: list[bytes]) -> Iterator[int]:
    first = number << (LEVEL - TIER)
    query = "SELECT number, hashes FROM tiles WHERE tier = 0 AND number >= ? AND number < ?"
    for tile, kept in log.ask(query, first, first + (PIECE >> TIER)):
        begin = (tile - first) * WIDTH
        part = hashes[begin : begin + WIDTH]
        yield from (begin + place for place in differing(part, kept if isinstance(kept, bytes) else b""))


def _recorded_at(log: RawLog, position: int) -> int:
    rows = log.ask("SELECT recorded_at FROM events WHERE position = ?", position)
    return rows[0][0] if rows and isinstance(rows[0][0], int) else BEFORE_ALL


# -- several at once


def _alone(
    database: Database, run: Run, directory: Path, told: Callable[[int], None]
) -> tuple[list[Piece], list[Rest]]:
    pieces: list[Piece] = []
    for found in _pieces(database, run, directory / "0"):
        if isinstance(found, Rest):
            return pieces, [found]
        pieces.append(found)
        told(found.end)
    raise AssertionError("a run ends with its rest")


class _Begun:
    """A run in a process of its own, which is ended with the block."""

    def __init__(self, process: multiprocessing.process.BaseProcess, pipe: Connection) -> None:
        self.process, self.pipe = process, pipe
        self.pieces: list[Piece] = []
        self.rest: Rest | None = None

    def __enter__(self) -> "_Begun":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join()


def _begun(database: Database, run: Run, directory: Path) -> _Begun:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(database, run, directory, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Begun(process, ours)


def _send(database: Database, run: Run, directory: Path, pipe: Connection) -> None:
    try:
        for found in _pieces(database, run, directory):
            pipe.send(found)
    except StoreUnavailable as error:
        pipe.send(error)


def _gather(runs: list[_Begun], told: Callable[[int], None]) -> tuple[list[Piece], list[Rest]]:
    """Raises `StoreUnavailable` when one of them cannot go on."""
    done = 0
    while waiting := [run.pipe for run in runs if run.rest is None]:
        ready = wait(waiting)
        for run in runs:
            if run.pipe in ready:
                _receive(run)
        done = sum(len(run.pieces) for run in runs) * PIECE
        told(done)
    return [piece for run in runs for piece in run.pieces], [run.rest for run in runs if run.rest]


def _receive(run: _Begun) -> None:
    try:
        found = run.pipe.recv()
    except EOFError as error:
        raise StoreUnavailable("A process that was reading the log has died.") from error
    if isinstance(found, Exception):
        raise found
    if isinstance(found, Rest):
        run.rest = found
    else:
        run.pieces.append(found)
