"""The log's rows as the driver gives them, page by page: for who takes all of them and needs each but for a moment."""

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from store.log import PAGE


class StoredRow(NamedTuple):
    """A row of the log; its stream as 16 bytes, as to make it a `UUID` costs as much as to read the row."""

    position: int
    stream: bytes
    version: int
    recorded_at: int
    topic: str
    state: bytes


_ROWS = "SELECT position, {stream}, version, recorded_at, topic, state FROM events WHERE position > ? AND position <= ?"
_AT_ALL = f"{_ROWS} ORDER BY position LIMIT {PAGE}"
_OF_ONE = f"{_ROWS} AND stream = ? AND version > ? ORDER BY version LIMIT {PAGE}"


def next_page(
    connection: Connection, after: int, until: int, stream: UUID | None = None, version: int = 0
) -> list[StoredRow]:
    """At most `PAGE` rows behind `after` up to `until`, in order; those of one stream above `version` only."""
    if stream is None:
        return _read(connection, _AT_ALL, after, until)
    return _read(connection, _OF_ONE, after, until, stream, version)


def _read(connection: Connection, sql: str, *arguments: object) -> list[StoredRow]:
    if connection.dialect.name == "sqlite":
        sql = sql.format(stream="substr(stream, 1)")  # a column's own type would be converted
    else:
        sql = sql.format(stream="uuid_send(stream)").replace("?", "%s")
    return [StoredRow._make(row) for row in connection.exec_driver_sql(sql, arguments)]
