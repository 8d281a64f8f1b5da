"""Moments as a person types them."""

import re
from datetime import UTC, datetime, timedelta

import typer

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def moment(text: str) -> datetime:
    """RFC 3339 with its offset; or a date, which is its first instant in UTC."""
    try:
        parsed = datetime.fromisoformat(text)
        if _DATE.fullmatch(text):
            return parsed.replace(tzinfo=UTC)
        if parsed.tzinfo is not None and _DATE.match(text):
            return parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise typer.BadParameter(f"{text!r} is not like 2026-11-23T10:00:00Z, nor a date like 2026-11-23.")


def last_moment(text: str) -> datetime:
    """The same; but a date is its last instant, so that the day is in."""
    day = timedelta(days=1, microseconds=-1) if _DATE.fullmatch(text) else timedelta()
    return moment(text) + day


def shown(at: datetime) -> str:
    """RFC 3339 in UTC, always as wide."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
