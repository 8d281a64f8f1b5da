"""Who has stopped following the log, and why: written by the one who leads, read by every process."""

from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select

from store.schema import parked


class Parked(NamedTuple):
    """A projection or a policy that stands after `position`; `since` in microseconds."""

    name: str
    position: int
    reason: str
    since: int


def park(connection: Connection, stopped: Parked) -> None:
    connection.execute(delete(parked).where(parked.c.name == stopped.name))
    connection.execute(insert(parked).values(stopped._asdict()))


def parked_now(connection: Connection) -> dict[str, Parked]:
    """By name."""
    rows = connection.execute(select(*(parked.c[name] for name in Parked._fields)))
    return {row.name: Parked(*row) for row in rows}


def resume(connection: Connection, name: str) -> bool:
    """Let it try again, within a second where somebody leads; False when it was not parked."""
    return connection.execute(delete(parked).where(parked.c.name == name)).rowcount == 1


def resume_all(connection: Connection) -> None:
    """What is newly started may be what cures them."""
    connection.execute(delete(parked))
