"""How far everybody has come who follows the log, and who has stopped, from the tables that all processes share."""

from typing import NamedTuple

from sqlalchemy import Connection, select

from projections.parking import parked_now
from projections.shadow import is_shadow
from store.log import last_position, recorded_at
from store.schema import tracking


class Standing(NamedTuple):
    """A projection or a policy. `lag_seconds`: the age of the oldest event that it has not seen; `parked`: why."""

    name: str
    position: int
    lag_events: int
    lag_seconds: float
    parked: str | None


class Status(NamedTuple):
    """`position` and `recorded_at` (microseconds, None for an empty log) of the last event; then who follows."""

    position: int
    recorded_at: int | None
    followers: list[Standing]


def status(connection: Connection, now: int) -> Status:
    """`now` in microseconds since 1970."""
    stopped = parked_now(connection)
    rows = connection.execute(select(tracking.c.name, tracking.c.position)).all()
    reached = {name: position for name, position in rows if not is_shadow(name)}
    reached |= {name: parked.position for name, parked in stopped.items() if name not in reached}
    head = last_position(connection)  # after the positions, so that none is beyond it
    followers = [
        Standing(
            name,
            position,
            head - position,
            max(0.0, (now - recorded_at(connection, position + 1)) / 1e6) if position < head else 0.0,
            stopped[name].reason if name in stopped else None,
        )
        for name, position in sorted(reached.items())
    ]
    return Status(head, recorded_at(connection, head) if head else None, followers)
