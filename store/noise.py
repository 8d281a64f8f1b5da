"""Random bytes that are no secrets (nonces, ids), asked of the system in blocks: a call costs many times an id."""

import os
import threading

BLOCK_BYTES = 8192

_lock = threading.Lock()
_left = bytearray()
os.register_at_fork(after_in_child=_left.clear)


def noise(count: int) -> bytes:
    """So many bytes from the system's generator, given out once."""
    with _lock:
        if len(_left) < count:
            _left[:] = os.urandom(max(count, BLOCK_BYTES))
        taken = bytes(_left[-count:])
        del _left[-count:]
        return taken
