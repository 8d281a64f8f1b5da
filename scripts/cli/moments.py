"""Moments as a person types and reads them."""

from collections.abc import Callable
from datetime import datetime

import typer

from projections import moments


def moment(text: str) -> datetime:
    """RFC 3339 with its offset; or a date, which is its first moment in UTC."""
    return _read(moments.first_moment, text)


def last_moment(text: str) -> datetime:
    """The same; but a date is its last moment, so that the day is in."""
    return _read(moments.last_moment, text)


def _read(read: Callable[[str], datetime], text: str) -> datetime:
    try:
        return read(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not like 2026-11-23T10:00:00Z, nor a date like 2026-11-23.") from error


def shown(at: datetime) -> str:
    """RFC 3339 in UTC, always as wide."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
