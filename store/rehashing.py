"""Rehashes the log in several processes at once."""

import multiprocessing
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection, wait
from pathlib import Path

from domain.errors import StoreUnavailable
from store.database import Database
from store.pieces import Piece, Rest, Run, pieces_of, runs_of


def rehash(
    database: Database, end: int, sizes: Sequence[int], directory: Path, processes: int, told: Callable[[int], None]
) -> tuple[list[Piece], list[Rest]]:
    """Every piece up to the position `end`; `told` hears of the events done. Files are put into `directory`.

    The processes are forked, as to import everything anew costs each of them more than a second: call it with
    `processes` above 1 only where no other thread runs.
    """
    runs = runs_of(end, sizes, processes)
    if len(runs) == 1:
        return _alone(database, runs[0], directory, told)
    database.discard_connections()  # no process may have those of another
    with ExitStack() as stack:
        begun = [stack.enter_context(_begun(database, run, directory / str(n))) for n, run in enumerate(runs)]
        return _gather(begun, told)


def _alone(
    database: Database, run: Run, directory: Path, told: Callable[[int], None]
) -> tuple[list[Piece], list[Rest]]:
    pieces: list[Piece] = []
    for found in pieces_of(database, run, directory / "0"):
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
        for found in pieces_of(database, run, directory):
            pipe.send(found)
    except StoreUnavailable as error:
        pipe.send(error)


def _gather(runs: list[_Begun], told: Callable[[int], None]) -> tuple[list[Piece], list[Rest]]:
    """Raises `StoreUnavailable` when one of them cannot go on."""
    while waiting := [run.pipe for run in runs if run.rest is None]:
        ready = wait(waiting)
        for run in runs:
            if run.pipe in ready:
                _receive(run)
        told(sum(piece.end - piece.start for run in runs for piece in run.pieces))
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
