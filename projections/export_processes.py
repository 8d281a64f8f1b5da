"""An export told by several processes at once, in the order of the log: a page takes longer to tell than to read.

Each process tells every so many-th page, and waits when its pipe is full: however slowly an export is taken, there is a
page a process in memory.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from domain.errors import StoreUnavailable
from store.database import Database

Told = TypeVar("Told")


def in_processes(
    database: Database, pages: Sequence[int], processes: int, tell: Callable[[int], Told]
) -> Iterator[Told]:
    """What `tell` makes of each page; it is called in other processes. Raises what it raises there."""
    database.discard_connections()  # none is shared with a fork
    with _begun(pages, processes, tell) as pipes:
        for _, pipe in zip(pages, cycle(pipes), strict=False):
            yield _received(pipe)


@contextmanager
def _begun(pages: Sequence[int], processes: int, tell: Callable[[int], Told]) -> Iterator[list[Connection]]:
    """A pipe from each process; they end with the block."""
    context = multiprocessing.get_context("fork")
    pipes, begun = [], []
    try:
        for first in range(processes):
            ours, theirs = context.Pipe(duplex=False)
            mine = pages[first::processes]
            process = context.Process(target=_tell, args=(mine, tell, ours, theirs), daemon=True)
            process.start()
            theirs.close()
            pipes.append(ours)
            begun.append(process)
        yield pipes
    finally:
        for process in begun:
            process.kill()
            process.join()


def _tell(pages: Sequence[int], tell: Callable[[int], Told], ours: Connection, theirs: Connection) -> None:
    """Ends when nobody listens any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who began this
    ours.close()
    try:
        for page in pages:
            theirs.send(tell(page))
    except BrokenPipeError:
        pass
    except Exception as error:
        theirs.send(error)


def _received(pipe: Connection) -> Any:
    try:
        found = pipe.recv()
    except EOFError as error:
        raise StoreUnavailable("A process that was telling the log has died.") from error
    if isinstance(found, Exception):
        raise found
    return found
