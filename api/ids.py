"""Identifiers (RFC 9562): time-ordered UUIDv7 for facts and requests, random UUIDv4 for sessions. Never secrets."""

import re
import threading
import time
from uuid import UUID

from store.noise import noise

_TAIL = (1 << 62) - 1
_WRITTEN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


def uuid7(now_ms: int, random_bytes: bytes) -> UUID:
    """The UUIDv7 of a moment, in milliseconds since 1970, and ten random bytes, of which it uses 74 bits."""
    random_bits = int.from_bytes(random_bytes)
    return _laid_out((now_ms << 12) | (random_bits >> 68), random_bits)


def new_uuid7() -> UUID:
    """A fresh UUIDv7, greater than any that this process made before, even when the wall clock steps back."""
    random_bits = int.from_bytes(noise(10))
    return _laid_out(_ticks.next(time.time_ns() // 1_000_000, random_bits >> 69), random_bits)


def uuid4() -> UUID:
    """A random id (RFC 9562 §5.4), 122 bits of chance."""
    return UUID(bytes=noise(16), version=4)


def uuid_of(text: str) -> UUID:
    """The UUID that is written so, in the one form of RFC 9562 §4. Raises ValueError."""
    if not _WRITTEN.fullmatch(text):
        raise ValueError("not a UUID in hexadecimal digits and hyphens")
    return UUID(text)


def _laid_out(tick: int, random_bits: int) -> UUID:
    """48 bits of time, version, 12 bits that order, variant, 62 random bits."""
    head = (tick >> 12) << 16 | 0x7000 | (tick & 0xFFF)
    return UUID(int=head << 64 | 1 << 63 | (random_bits & _TAIL))


class _Ticks:
    """Growing 60-bit values: a millisecond and a counter of 12 bits, which starts anew each millisecond at a random
    number of 11 bits and carries into the next one when it is full (RFC 9562 §6.2, method 1)."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def next(self, now_ms: int, start: int) -> int:
        with self._lock:
            self._last = (now_ms << 12) | start if now_ms > self._last >> 12 else self._last + 1
            return self._last


_ticks = _Ticks()
