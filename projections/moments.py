"""Moments as they are written to us: one rule for the command line, for queries and for bodies."""

import re
from datetime import UTC, datetime, timedelta

RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_A_DAY = timedelta(days=1, microseconds=-1)


def exact_moment(text: str) -> datetime:
    """What RFC 3339, section 5.6, writes so, in UTC; digits beyond microseconds are cut off. Raises ValueError.

    A time without an offset is refused, since nobody says whose it is; so is a leap second, which no clock here counts.
    """
    if not RFC_3339.fullmatch(text):
        raise ValueError("not a moment as RFC 3339 writes it")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError:
        raise ValueError("not a moment of the years 1 to 9999 in UTC") from None


def first_moment(text: str) -> datetime:
    """The same; or a date, which is its first moment in UTC. Raises ValueError."""
    if _DATE.fullmatch(text):
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    return exact_moment(text)


def last_moment(text: str) -> datetime:
    """The same; but a date is its last microsecond, so that the day is in. Raises ValueError."""
    return first_moment(text) + (_A_DAY if _DATE.fullmatch(text) else timedelta())
