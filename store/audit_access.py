"""Who has read the audit log, and what he asked for: beside the ledger, not in it, or reading would write history."""

from sqlalchemy import Connection, delete
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite

from store.schema import audit_access

HOUR = 3_600 * 1_000_000
KEEP = 400 * 24 * HOUR
"""A year and some weeks: twelve months are asked for (OBS-04)."""


def record_access(connection: Connection, reader: str, asked: str, now: int) -> None:
    """Count a read. `reader` as events name actors; `asked` without personal data; `now` in microseconds."""
    insert = insert_sqlite if connection.dialect.name == "sqlite" else insert_postgresql
    counting = insert(audit_access).values(reader=reader, filter=asked, hour=now - now % HOUR, reads=1)
    counted = counting.on_conflict_do_update(
        index_elements=list(audit_access.primary_key), set_={"reads": audit_access.c.reads + 1}
    )
    connection.execute(counted)


def forget_old_accesses(connection: Connection, now: int) -> int:
    """Delete what is older than `KEEP`; how many rows. `now` in microseconds. It looks at every row: not too often."""
    return connection.execute(delete(audit_access).where(audit_access.c.hour < now - KEEP)).rowcount
