"""The master key: a file of one key in base64, or of two while it is rotated. The first one wraps, both open.

The file may change while processes run (`store/rotation.py`): whoever wraps looks at it before, and whoever cannot open
something looks again. It must be one local file for all of them.
"""

import os
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from domain.errors import StoreUnavailable
from store import durable_file
from store.sealing import SealBroken, seal, unseal

KEY_BYTES = 32

Ring = tuple[bytes, ...]


class MasterKeyError(Exception):
    """The master key file is missing, unreadable, or not the one that these keys were wrapped with."""


class MasterKey:
    """What wraps keys. `check` raises `MasterKeyError` for a ring that does not belong to the keys."""

    def __init__(self, path: Path, check: Callable[[Ring], None]) -> None:
        self.path = path
        self._check = check
        self._seen = _signature(path)  # before it is read: what changes meanwhile is seen as a change
        self._known = read_ring(path)
        self._wrapping = self._known[0]

    def wrap(self, key: bytes, bound_to: bytes) -> bytes:
        """Under the newest key that the file has now."""
        self._refresh()
        return seal(self._wrapping, key, bound_to)

    def open(self, wrapped: bytes, bound_to: bytes) -> bytes:
        """Raises `SealBroken` when no key of the file opens it."""
        try:
            return open_with(self._known, wrapped, bound_to)
        except SealBroken:
            if not self._refresh():
                raise
        return open_with(self._known, wrapped, bound_to)

    def _refresh(self) -> bool:
        """Take what the file says now, if it is another one. What was read before a change is still opened.

        A file that is gone is not being rotated: what is known stays.
        """
        seen = _signature(self.path)
        if seen is None or seen == self._seen:
            return False
        try:
            ring = read_ring(self.path)
            self._check(ring)
        except MasterKeyError as error:
            raise StoreUnavailable(str(error)) from error
        self._known = (*ring, *(key for key in self._known if key not in ring))
        self._wrapping = ring[0]
        self._seen = seen
        return True


def open_with(ring: Ring, wrapped: bytes, bound_to: bytes) -> bytes:
    """Raises `SealBroken` when none of these keys opens it."""
    for key in ring[:-1]:
        with suppress(SealBroken):
            return unseal(key, wrapped, bound_to)
    return unseal(ring[-1], wrapped, bound_to)


def new_key() -> bytes:
    return os.urandom(KEY_BYTES)


def _signature(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def read_ring(path: Path) -> Ring:
    """The keys of the file, newest first. Raises `MasterKeyError`."""
    try:
        ring = tuple(b64decode(line, validate=True) for line in path.read_text().split())
    except FileNotFoundError as error:
        raise MasterKeyError(
            f"{path} is missing, and keys wrapped with it exist: restore it from its backup."
        ) from error
    except (OSError, UnicodeDecodeError, Base64Error) as error:
        raise MasterKeyError(f"{path} cannot be read as a master key: {error}") from error
    for key in ring or (b"",):
        if len(key) != KEY_BYTES:
            raise MasterKeyError(f"{path} holds {len(key)} bytes; a master key is {KEY_BYTES} bytes in base64.")
    return ring


def create(path: Path) -> None:
    """Make a master key, if there is none. When two processes do it at once, the first one's stays."""
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        durable_file.create(path, _lines([new_key()]))
    except OSError as error:
        raise MasterKeyError(f"{path} cannot be written as a master key: {error}") from error


def replace(path: Path, ring: Sequence[bytes]) -> None:
    """Let the file hold these keys: whole or not at all, durable, and its owner's as before. Raises `MasterKeyError`.

    Only one process may replace it at a time. Drafts of one that was killed are removed.
    """
    path = path.resolve()
    try:
        durable_file.remove_drafts(path)
        with durable_file.replacing(path) as file:
            file.write(_lines(ring))
    except OSError as error:
        raise MasterKeyError(f"{path} cannot be written: {error}") from error


def _lines(ring: Sequence[bytes]) -> bytes:
    return b"".join(b64encode(key) + b"\n" for key in ring)
