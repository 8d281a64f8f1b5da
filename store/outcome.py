"""What a command came to, for whoever waits for it: not for ever."""

from concurrent.futures import Future
from typing import TypeVar

from domain.errors import OutcomeUnknown, StoreUnavailable
from domain.ledger import Recorded

T = TypeVar("T")

PATIENCE_S = 12.0
"""Longer than the writer mostly waits, for a held lock or a lost connection; not than both, one after another."""


def outcome(future: "Future[Recorded[T]]") -> Recorded[T]:
    """It, once it is durable. Raises its refusal, or after `PATIENCE_S` what `given_up` says."""
    try:
        return future.result(PATIENCE_S)
    except TimeoutError:
        raise given_up(future) from None


def given_up(future: "Future[Recorded[T]]") -> StoreUnavailable:
    """Take a command back that nobody waits for any longer, and say whether that was possible."""
    if future.cancel():
        return StoreUnavailable("The change waited too long, and was taken back.")
    return OutcomeUnknown("The store does not say whether the change was recorded.")
