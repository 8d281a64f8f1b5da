"""An event of the log as a row for a spreadsheet: for reading. It is no evidence, and its own header says so."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json

from projections.cloud_events import dashed, moment, unreadable
from store.stored_rows import StoredRow

HEADER = (
    *("position", "recorded_at", "time", "event", "user_or_stream", "version", "session_id", "actor", "reason"),
    *("event_id", "correlation_id", "causation_id", "data_for_reading_not_evidence"),
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")


class CsvRows:
    """Rows of the log, safe to be opened in a spreadsheet: no cell of them is a formula (T-08)."""

    def __call__(self, records: list[StoredRow]) -> bytes:
        """Raises `Unreadable`, naming the position."""
        return _written(map(_row, records))


def header() -> bytes:
    return _written(iter([HEADER]))


def _written(rows: Iterator[tuple[Any, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([map(_cell, row) for row in rows])
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def _row(row: StoredRow) -> tuple[Any, ...]:
    position, stream, version, recorded_at, topic, state = row
    try:
        said = from_json(state)
        return (
            position,
            moment(recorded_at).decode(),
            moment(said["timestamp"]).decode(),
            topic,
            dashed(stream.hex()),
            version,
            _id(said, "session_id"),
            said["actor"],
            said.get("reason"),
            _id(said, "event_id"),
            _id(said, "correlation_id"),
            _id(said, "causation_id"),
            state.decode(),
        )
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise unreadable(row, error) from error


def _id(said: dict[str, Any], name: str) -> str | None:
    return dashed(said[name]) if name in said else None
