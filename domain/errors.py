"""What can be wrong with a wish, in the domain's words. HTTP knows nothing of it: `api/errors.py` maps these."""


class LedgerError(Exception):
    """Base of every refusal: nothing was recorded, but for `OutcomeUnknown`."""


class UserDisabled(LedgerError):
    """The user is disabled: no session may be created for him."""


class UserErased(LedgerError):
    """The user was erased: nothing is recorded about him any more."""


class SessionNotFound(LedgerError):
    """No session of this user has that id: unknown, another user's or malformed, told apart to nobody."""


class ForeignReplacement(LedgerError):
    """The session to be replaced is unknown, or is not one of the user who signs in."""


class IdempotencyKeyReused(LedgerError):
    """The same idempotency key came with another request."""


class IdempotentSessionEnded(LedgerError):
    """The session that this idempotency key created has ended since: its token is not given out again."""


class LedgerBusy(LedgerError):
    """Too many commands wait already; try again in a moment."""


class StoreUnavailable(LedgerError):
    """The store cannot be reached or cannot write (disk full, database down): the wish is not durable."""


class OutcomeUnknown(StoreUnavailable):
    """The store does not say whether it recorded the wish. Every command may be repeated."""
