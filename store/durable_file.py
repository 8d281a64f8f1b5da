"""Files that are whole or not there, also when the process is killed, the machine stops, or the disk is full.

Each is written beside its place under another name, is on disk, and only then gets its own. Whoever is killed on the
way leaves the draft, `.<name>.<letters>`.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """The content, which takes the place of what is there at the end of the block; an error leaves that as it was.

    A new file is its owner's alone; one that was there keeps owner and mode. Raises OSError.
    """
    with _draft(path) as (file, draft):
        yield file
        with suppress(FileNotFoundError):
            before = path.stat()
            os.fchown(file.fileno(), before.st_uid, before.st_gid)
            os.fchmod(file.fileno(), before.st_mode & 0o7777)
        _put_on_disk(file)
        draft.replace(path)
    sync_directory(path.parent)


def create(path: Path, content: bytes) -> None:
    """Unless somebody has made it first: then his stays. Its owner's alone. Raises OSError."""
    with _draft(path) as (file, draft):
        file.write(content)
        _put_on_disk(file)
        with suppress(FileExistsError):
            os.link(draft, path)
    sync_directory(path.parent)


def remove_drafts(path: Path) -> None:
    """Of those who were killed, where nobody else writes the file now."""
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink()


def sync_directory(directory: Path) -> None:
    """So that the names in it are on disk, too."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _draft(path: Path) -> Iterator[tuple[IO[bytes], Path]]:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # known before it is there: Ctrl-C may come at once
    try:
        with open(draft, "xb", opener=_for_its_owner) as file:
            yield file, draft
    finally:
        draft.unlink(missing_ok=True)


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _put_on_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
