"""Opaque cursors: a place in one user's history, bound to the question that it continues (API-02, T-22)."""

import base64
import hashlib
import hmac
from binascii import Error as Base64Error
from uuid import UUID

from api.errors import Problem

TAG_BYTES = 16
START = 2**31 - 1


class Cursors:
    """`key` must be the same in every process that serves."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def after(self, stream: UUID, question: str, version: int) -> str:
        place = version.to_bytes(8, "big")
        return base64.urlsafe_b64encode(place + self._tag(stream, question, place)).decode().rstrip("=")

    def read(self, stream: UUID, question: str, cursor: str | None) -> int:
        """The version that a page begins below. Raises a 400 for a cursor that was not made for this very question."""
        if cursor is None:
            return START
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (Base64Error, ValueError):
            raw = b""
        place, tag = raw[:8], raw[8:]
        if not hmac.compare_digest(tag, self._tag(stream, question, place)):
            raise Problem("invalid-cursor", "Use a cursor as it came, with the same user and the same status.")
        return int.from_bytes(place, "big")

    def _tag(self, stream: UUID, question: str, place: bytes) -> bytes:
        return hmac.digest(self._key, stream.bytes + place + question.encode(), hashlib.sha256)[:TAG_BYTES]
