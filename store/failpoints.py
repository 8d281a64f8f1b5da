"""Where a test may kill this process with SIGKILL: the moments at which a crash could lose or double something.

Nothing is armed unless a test arms it in a process of its own; then reaching the point is the end of that process.
"""

import os
import signal
from enum import StrEnum


class Failpoint(StrEnum):
    """Named after what has just happened, or is about to."""

    AFTER_LOCK = "after-lock"
    AFTER_INSERT = "after-insert"
    BEFORE_COMMIT = "before-commit"
    AFTER_COMMIT = "after-commit"
    BEFORE_REPLY = "before-reply"
    AFTER_KEY_COMMIT = "after-key-commit"
    AFTER_NEW_MASTER = "after-new-master"
    AFTER_REWRAP = "after-rewrap"
    BEFORE_OLD_MASTER_LEAVES = "before-old-master-leaves"
    BEFORE_TRACKING = "before-tracking"
    AFTER_SIGNING = "after-signing"
    AFTER_TOMBSTONE = "after-tombstone"
    AFTER_KEY_DESTROYED = "after-key-destroyed"
    AFTER_PURGE = "after-purge"
    AFTER_PURGE_DESTROYED = "after-purge-destroyed"


_passes: dict[Failpoint, int] = {}


def arm(point: Failpoint, passes: int = 0) -> None:
    """Die at this point, after it was passed so many times."""
    _passes[point] = passes


def reach(point: Failpoint) -> None:
    if _passes:
        _pass(point)


def _pass(point: Failpoint) -> None:
    left = _passes.get(point)
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if left:
        _passes[point] = left - 1
