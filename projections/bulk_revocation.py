"""How many sessions ending many would end, and how many it has ended."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast
from uuid import UUID

from eventsourcing.persistence import Mapper
from sqlalchemy import Connection, distinct, func, select

from domain.events import EndReason, SessionRevoked
from projections.session_views import active_before
from store.clock import to_micros
from store.recorder import EventRecorder

PAGE = 1_000


class Count(NamedTuple):
    """Sessions, and the users whose sessions they are."""

    sessions: int
    users: int


def count_active(connection: Connection, now: datetime, before: datetime, users: Sequence[UUID] | None) -> Count:
    """The sessions, of these users or of everybody, that are active now and were created before then."""
    table, condition = active_before(users)
    query = select(func.count(), func.count(distinct(table.c.stream))).where(condition)
    values = {"now": to_micros(now), "created_before": to_micros(before)}
    return Count(*connection.execute(query, values).one())


def count_ended(
    recorder: EventRecorder, mapper: Mapper[Any], correlation_id: UUID, reason: EndReason, after: int
) -> Count:
    """The sessions that one request ended, since a position in the log: not those that time had ended before."""
    sessions, users = 0, set()
    while page := recorder.select_notifications(after, PAGE, topics=[SessionRevoked.TOPIC], inclusive_of_start=False):
        for notification in page:
            fact = cast(SessionRevoked, mapper.to_domain_event(notification))
            if fact.correlation_id == correlation_id and fact.reason == reason:
                sessions += 1
                users.add(fact.originator_id)
        after = page[-1].id
    return Count(sessions, len(users))
