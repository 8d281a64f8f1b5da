"""Who signs checkpoints: a key in a file outside the database, and beside it the memory of what was signed last.

The memory is the last note itself. It is durable before the note is published, so that whoever puts an older copy of
the database in place is found out: nothing is signed behind it, or inconsistent with it (TEV-03).
"""

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import insert, select

from store.database import Database, store_errors
from store.durable_file import create, replacing
from store.merkle import EMPTY_ROOT, ProofRefused, check_consistency
from store.notes import Checkpoint, NoteError, Signer, Verifier
from store.schema import bindings, head

BINDING = "signing-key"
PATIENCE_S = 10.0
RETRY_S = 0.01


class SigningKeyError(Exception):
    """The signing key or its memory is missing or unreadable, or is not that of this log."""


class SigningRefused(Exception):
    """The log is not one that grew out of what was signed last."""


class SigningKey:
    """The key in its file. Nothing is created by opening it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.memory = memory_of(path)
        try:
            self._signer = Signer.parse(path.read_text().strip())
        except FileNotFoundError as error:
            raise SigningKeyError(f"The signing key {path} is missing: restore it from its backup.") from error
        except (OSError, UnicodeDecodeError, NoteError) as error:
            raise SigningKeyError(f"{path} cannot be read as a signing key: {error}") from error

    @property
    def verifier(self) -> Verifier:
        return self._signer.verifier

    @contextmanager
    def signing(self) -> Iterator["Signing"]:
        """The right to sign, which one process has at a time, after the last one's memory is read.

        Raises TimeoutError when another one does not give it up, and `SigningKeyError` without that memory.
        """
        with _locked(self.path):
            yield Signing(self._signer, self.memory, self.remembered())

    def remembered(self) -> Checkpoint:
        """What was signed last. Raises `SigningKeyError` where that cannot be said."""
        return read_memory(self.memory, self.verifier)


class Signing:
    """The right to sign, held. `last` is the largest checkpoint that this key is known to have signed."""

    def __init__(self, signer: Signer, memory: Path, last: Checkpoint) -> None:
        self._signer, self._memory, self.last = signer, memory, last

    def heed(self, published: str) -> None:
        """Hold to a published note, too: on another machine the memory may be an older one. Others' are ignored."""
        with suppress(NoteError):
            checkpoint = self._signer.verifier.open(published)
            self.last = max(self.last, checkpoint, key=lambda each: each.size)

    def sign(self, size: int, root: bytes, proof: Sequence[bytes]) -> str:
        """The note, which the memory holds by now. `proof` shows that the tree grew out of the last one.

        Raises `SigningRefused` for a tree that did not.
        """
        if size < self.last.size:
            raise SigningRefused(f"The log ends at {size}, and {self.last.size} was signed: this is an older copy.")
        if self.last.size:
            try:
                check_consistency(self.last.size, size, proof, self.last.root, root)
            except ProofRefused as error:
                raise SigningRefused(f"The log is not the one that was signed at {self.last.size}: {error}") from error
        note = self._signer.sign(size, root)
        _remember(self._memory, note)
        self.last = Checkpoint(self._signer.verifier.name, size, root)
        return note


def memory_of(key: Path) -> Path:
    """Where the memory of a signing key is."""
    return key.with_name(f"{key.name}.last")


def read_memory(path: Path, verifier: Verifier) -> Checkpoint:
    """What a key signed last. Raises `SigningKeyError` where that cannot be said."""
    try:
        return verifier.open(path.read_text())
    except (OSError, UnicodeDecodeError, NoteError) as error:
        raise SigningKeyError(f"What was signed last cannot be read from {path}: {error}") from error


def signing_key_of(log: Database, path: Path, origin: str) -> SigningKey:
    """The key that this log is bound to; at its first use one is made, unless the file is there.

    Raises `SigningKeyError` when the key is lost or another one, or signs under another name.
    """
    bound = bound_key(log)
    if bound is None and not path.exists():
        _make(path, origin)
    key = SigningKey(path)
    if bound is None:
        bound = _bind(log, key.verifier.vkey)
    if bound != key.verifier.vkey:
        raise SigningKeyError(f"{path} is not the key that this log is signed with, {bound}.")
    if key.verifier.name != origin:
        raise SigningKeyError(f"{path} signs as {key.verifier.name!r}, and LEDGER_ORIGIN is {origin!r}.")
    return key


def bound_key(log: Database) -> str | None:
    """The vkey of the key that this log is signed with, if it has one."""
    with store_errors(), log.reading() as connection:
        value = connection.execute(select(bindings.c.value).where(bindings.c.name == BINDING)).scalar()
    return value.decode() if value else None


def _bind(log: Database, vkey: str) -> str:
    """Unless another process has bound the log since; what it is bound to."""
    with store_errors(), log.transaction() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(select(head).with_for_update())
        if not connection.execute(select(bindings.c.value).where(bindings.c.name == BINDING)).scalar():
            connection.execute(insert(bindings).values(name=BINDING, value=vkey.encode()))
    return bound_key(log) or vkey


def _make(path: Path, origin: str) -> None:
    """A key, readable to its owner only, whose memory is that of an empty log; unless another process has made one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        if not path.exists():
            signer = Signer(origin, Ed25519PrivateKey.generate())
            _remember(memory_of(path), signer.sign(0, EMPTY_ROOT))  # also in the place of a lost key's
            create(path, f"{signer.key}\n".encode())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Raises TimeoutError rather than wait for ever for a process that hangs."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _wait_for(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, path: Path) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > give_up:
                raise TimeoutError(f"Another process has held {path} for {PATIENCE_S:.0f} s.") from error
            time.sleep(RETRY_S)


def _remember(memory: Path, note: str) -> None:
    with replacing(memory) as file:
        file.write(note.encode())
