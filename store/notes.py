"""Checkpoints of the log as C2SP signed notes: how large the log is and its root, signed with Ed25519.

Formats: c2sp.org/signed-note and c2sp.org/tlog-checkpoint, without extension lines. They are read strictly.
"""

import binascii
import hashlib
import re
from base64 import b64decode, b64encode
from typing import NamedTuple, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from store.merkle import HASH_BYTES

ED25519 = b"\x01"
KEY_ID_BYTES = 4
MOST_SIGNATURES = 100
PRIVATE = "PRIVATE+KEY+"

_SIZE = re.compile("0|[1-9][0-9]{0,18}")
_SIGNATURE = re.compile(r"— ([^\s+]+) (\S+)")


class NoteError(ValueError):
    """This is no note, no key, or not signed by the key asked for."""


class Checkpoint(NamedTuple):
    """What a log that is called `origin` was at `size` events."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{_encode(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises `NoteError` for anything that `text` would not say."""
        origin, size, root, end, *more = [*text.split("\n"), "", "", ""]
        if end or any(more) or text.count("\n") != 3 or not origin or not _SIZE.fullmatch(size):
            raise NoteError("A checkpoint is an origin, a size and a root, each on a line.")
        return cls(origin, int(size), _decode(root, HASH_BYTES))


class Verifier:
    """A public key and the name that it signs under: who can read notes."""

    def __init__(self, name: str, public: Ed25519PublicKey) -> None:
        self.name = _name(name)
        self._public = public
        self._key = ED25519 + public.public_bytes_raw()
        self.key_id = hashlib.sha256(name.encode() + b"\n" + self._key).digest()[:KEY_ID_BYTES]

    @property
    def vkey(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{_encode(self._key)}"

    @classmethod
    def parse(cls, vkey: str) -> Self:
        """Raises `NoteError` for anything but the vkey of an Ed25519 key."""
        name, key_id, key = _parts(vkey)
        found = cls(name, Ed25519PublicKey.from_public_bytes(key))
        if found.key_id.hex() != key_id:
            raise NoteError("The key's id is not that of its name and bytes.")
        return found

    def open(self, note: str) -> Checkpoint:
        """What a note says. Signatures of other keys are ignored. Raises `NoteError` unless ours is there and right."""
        text, signatures = _split(note)
        ours = [signature for name, key_id, signature in signatures if (name, key_id) == (self.name, self.key_id)]
        if not ours:
            raise NoteError(f"The note is not signed by {self.name}+{self.key_id.hex()}.")
        for signature in ours:
            try:
                self._public.verify(signature, text.encode())
            except InvalidSignature as error:
                raise NoteError("The signature is not one of this text.") from error
        checkpoint = Checkpoint.parse(text)
        if checkpoint.origin != self.name:
            raise NoteError(f"The note is about another log, {checkpoint.origin}.")
        return checkpoint


class Signer:
    """A private key and the name that it signs under, which is also the log's origin."""

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.verifier = Verifier(name, private.public_key())

    @property
    def key(self) -> str:
        """The private key as `golang.org/x/mod/sumdb/note` writes it."""
        verifier = self.verifier
        return (
            f"{PRIVATE}{verifier.name}+{verifier.key_id.hex()}+{_encode(ED25519 + self._private.private_bytes_raw())}"
        )

    @classmethod
    def parse(cls, key: str) -> Self:
        """Raises `NoteError` for anything that `key` would not say."""
        if not key.startswith(PRIVATE):
            raise NoteError("This is no private key.")
        name, key_id, secret = _parts(key.removeprefix(PRIVATE))
        found = cls(name, Ed25519PrivateKey.from_private_bytes(secret))
        if found.verifier.key_id.hex() != key_id:
            raise NoteError("The key's id is not that of its name and bytes.")
        return found

    def sign(self, size: int, root: bytes) -> str:
        """The note that says so; the same bytes each time."""
        text = Checkpoint(self.verifier.name, size, root).text
        signature = _encode(self.verifier.key_id + self._private.sign(text.encode()))
        return f"{text}\n— {self.verifier.name} {signature}\n"


def _split(note: str) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """The signed text, and of each signature its name, its key's id and its bytes."""
    if any(character < " " and character != "\n" for character in note):
        raise NoteError("A note has no control characters.")
    text, blank, signatures = note.rpartition("\n\n")
    lines = signatures.split("\n")
    if not blank or lines.pop() or not 0 < len(lines) <= MOST_SIGNATURES:
        raise NoteError("A note is a text, an empty line, and signatures.")
    return text + "\n", [_signature(line) for line in lines]


def _signature(line: str) -> tuple[str, bytes, bytes]:
    found = _SIGNATURE.fullmatch(line)
    if not found:
        raise NoteError("A signature is a dash, a name and base64.")
    signed = _decode(found[2])
    if len(signed) <= KEY_ID_BYTES:
        raise NoteError("A signature begins with its key's id.")
    return found[1], signed[:KEY_ID_BYTES], signed[KEY_ID_BYTES:]


def _parts(key: str) -> tuple[str, str, bytes]:
    name, _, rest = key.partition("+")
    key_id, _, encoded = rest.partition("+")
    decoded = _decode(encoded, 1 + HASH_BYTES)
    if decoded[:1] != ED25519:
        raise NoteError("Only Ed25519 keys are used here.")
    return _name(name), key_id, decoded[1:]


def _name(name: str) -> str:
    if not re.fullmatch(r"[^\s+]+", name) or not name.isprintable():
        raise NoteError("A key's name has no spaces and no plus signs.")
    return name


def _encode(value: bytes) -> str:
    return b64encode(value).decode()


def _decode(text: str, length: int | None = None) -> bytes:
    """Raises `NoteError` for base64 that is written in another way than `_encode` would."""
    try:
        value = b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoteError("This is not base64.") from error
    if _encode(value) != text or length not in (None, len(value)):
        raise NoteError("This is not base64 of the right length.")
    return value
