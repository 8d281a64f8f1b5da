"""Checkpoints as they are published: how long the log was, and the note that says so."""

from typing import NamedTuple

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite

from store.notes import Checkpoint
from store.schema import checkpoints


class Published(NamedTuple):
    """A row of `checkpoints`. `created_at` in microseconds."""

    size: int
    root: bytes
    note: str
    created_at: int


def publish(connection: Connection, checkpoint: Checkpoint, note: str, created_at: int) -> None:
    """Unless one of that size is published."""
    insert = insert_sqlite if connection.dialect.name == "sqlite" else insert_postgresql
    row = Published(checkpoint.size, checkpoint.root, note, created_at)
    connection.execute(insert(checkpoints).values(row._asdict()).on_conflict_do_nothing())


def latest(connection: Connection) -> Published | None:
    """The largest one; None before the first."""
    row = connection.execute(select(checkpoints).order_by(checkpoints.c.size.desc()).limit(1)).first()
    return Published(*row) if row else None
