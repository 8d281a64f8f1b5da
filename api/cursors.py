"""Opaque cursors: a place in an answer, bound to who asks and to the question that it continues (API-02, T-22)."""

import base64
import hashlib
import hmac
from binascii import Error as Base64Error

from api.errors import Problem

TAG_BYTES = 16


class Cursors:
    """`key` must be the same in every process that serves."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def after(self, owner: str, question: str, place: int) -> str:
        """`owner`: whom it is good for, or whose data it leads into."""
        packed = place.to_bytes(8, "big")
        return base64.urlsafe_b64encode(packed + self._tag(owner, question, packed)).decode().rstrip("=")

    def read(self, owner: str, question: str, cursor: str) -> int:
        """The place that a page begins behind. Raises a 400 for a cursor that was not made for this very question."""
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (Base64Error, ValueError):
            raw = b""
        packed, tag = raw[:8], raw[8:]
        if not hmac.compare_digest(tag, self._tag(owner, question, packed)):
            raise Problem("invalid-cursor", "Use a cursor as it came, with the same question.")
        return int.from_bytes(packed, "big")

    def _tag(self, owner: str, question: str, packed: bytes) -> bytes:
        told = b"\0".join((owner.encode(), packed, question.encode()))  # neither name nor question has a NUL
        return hmac.digest(self._key, told, hashlib.sha256)[:TAG_BYTES]
