"""The log's rows as the driver gives them, page by page: for who takes all of them and needs each but for a moment."""

from uuid import UUID

from sqlalchemy import Connection

from store.log import PAGE

StoredRow = tuple[int, bytes, int, int, str, bytes]
"""Position, stream as its 16 bytes, version, `recorded_at`, topic, state. As plain as that: there are very many."""

_ROWS = "SELECT position, {stream}, version, recorded_at, topic, state FROM events WHERE position > ? AND position <= ?"
_AT_ALL = f"{_ROWS} ORDER BY position LIMIT ?"
_OF_ONE = f"{_ROWS} AND stream = ? AND version > ? ORDER BY version LIMIT ?"


def next_page(
    connection: Connection, after: int, until: int, stream: UUID | None = None, version: int = 0, *, size: int = PAGE
) -> list[StoredRow]:
    """At most `size` rows behind `after` up to `until`, in order; those of one stream above `version` only."""
    if stream is None:
        return _read(connection, _AT_ALL, after, until, size)
    return _read(connection, _OF_ONE, after, until, stream, version, size)


def _read(connection: Connection, sql: str, *arguments: object) -> list[StoredRow]:
    if connection.dialect.name == "sqlite":
        sql = sql.format(stream="substr(stream, 1)")  # a column's own type would be converted
    else:
        sql = sql.format(stream="uuid_send(stream)").replace("?", "%s")
    with connection.exec_driver_sql(sql, arguments) as result:
        return list(result.cursor.fetchall())
