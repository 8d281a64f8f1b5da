"""`GET /api/audit/stream`: events as they come, as Server-Sent Events (WHATWG HTML, §9.2), resumable where they end."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from pydantic_core import to_json
from sqlalchemy import Connection
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from api.audit import Auditor
from api.audit_access import note_access, sees_people
from api.audit_filter import AuditQuestion
from api.audit_presenting import AuditPresenter
from api.audit_streams import AuditStreams
from api.body import StrictRoute
from api.credentials import Authorized, still_holds
from api.errors import Problem, problem_responses
from api.ids import uuid_of
from api.long_answers import CHECK_S, LongAnswer
from api.openapi import BEARER, USER_PROBLEMS, operation_id
from api.service import Service
from domain.errors import LedgerError
from projections.audit import by_event_id, following, freshness, last_before
from projections.audit_filter import AuditFilter
from store.audit_access import HOUR

BATCH = 100
HEARTBEAT_S = 15.0
RETRY_MS = 2_000
HEADERS = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}

router = APIRouter(tags=["audit"], route_class=StrictRoute, generate_unique_id_function=operation_id)

_EVENTS: dict[int | str, Any] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}


@router.get("/api/audit/stream", summary="The audit log as it grows", response_class=Response, openapi_extra=BEARER,
            responses={**_EVENTS, **problem_responses(*USER_PROBLEMS, "busy", "unknown-event")})  # fmt: skip
async def stream_audit(
    http: HttpRequest,
    by: Auditor,
    asked: Annotated[AuditQuestion, Query()],
    last_event_id: Annotated[
        str | None, Header(max_length=64, description="The `id` of the last event that came.", examples=[None])
    ] = None,
) -> Response:
    """Each event that fits, in the order of the log and without a gap, as `data` in the form that a search has it in.

    It begins behind `Last-Event-ID`, or else at `start_date`, or else now. It ends when the credential does.
    """
    service: Service = http.app.state.service
    streams: AuditStreams = http.app.state.audit_streams
    wanted = asked.asks(service.keys.pseudonym)

    def begin(connection: Connection) -> int:
        note_access(service, by, "stream", **wanted.given())
        return _beginning(connection, last_event_id, wanted)

    after = await service.long_reads.run(begin)
    streams.enter(by.name)
    return LongAnswer(AuditStream(http, by, wanted, after).chunks(), http, by, streams, HEADERS)


def _beginning(connection: Connection, last_event_id: str | None, wanted: AuditFilter) -> int:
    """The position that the stream begins behind."""
    if last_event_id is not None:
        try:
            row = by_event_id(connection, uuid_of(last_event_id))
        except ValueError:
            row = None
        if row is None:
            raise Problem("unknown-event", "Last-Event-ID is none of the events of this log.")
        return row.position
    return freshness(connection).position if wanted.start is None else last_before(connection, wanted.start)


class AuditStream:
    """What one auditor listens to. Holds a batch of rows at most; a slow reader slows only himself."""

    def __init__(self, http: HttpRequest, by: Authorized, wanted: AuditFilter, after: int) -> None:
        self._http = http
        self._by = by
        self._wanted = wanted
        self._after = after
        self._service: Service = http.app.state.service
        self._streams: AuditStreams = http.app.state.audit_streams
        self._presenter: AuditPresenter = http.app.state.audit_presenter
        self._noted_at = self._service.clock.micros()
        self._checked_at = self._spoke_at = self._now()

    async def chunks(self) -> AsyncIterator[bytes]:
        yield b"retry: %d\n\n" % RETRY_MS
        while not self._streams.closed.is_set() and await self._may_go_on():
            until = await self._streams.position_beyond(self._after, CHECK_S)
            try:
                events = await self._next(until)
            except LedgerError:  # who listens comes again, and misses nothing
                return
            if events:
                if not await still_holds(self._http, self._by):
                    return
                self._spoke_at = self._now()
                yield b"".join(map(_message, events))
            elif self._now() - self._spoke_at >= HEARTBEAT_S:
                self._spoke_at = self._now()
                yield b":\n\n"

    async def _next(self, until: int) -> list[dict[str, Any]]:
        """The next events that fit, at most a batch. What lies before the last one, or up to `until`, is done with."""
        if until <= self._after:
            return []
        rows, events = await self._service.long_reads.run(lambda connection: self._read(connection, until))
        self._after = rows[-1].position if len(rows) == BATCH else until
        return events

    def _read(self, connection: Connection, until: int) -> tuple[Sequence[Any], list[dict[str, Any]]]:
        rows = following(connection, self._wanted, BATCH, self._after, until)
        return rows, self._presenter.shown(connection, rows, personal=sees_people(self._by))

    async def _may_go_on(self) -> bool:
        """Whether the credential is still what it was, looked at every few seconds; each hour is recorded anew."""
        if self._now() - self._checked_at < CHECK_S:
            return True
        self._checked_at = self._now()
        try:
            await self._note_next_hour()
        except LedgerError:
            return False
        return await still_holds(self._http, self._by)

    async def _note_next_hour(self) -> None:
        now = self._service.clock.micros()
        if now // HOUR != self._noted_at // HOUR:
            self._noted_at = now
            asked = self._wanted.given()
            await self._service.long_reads.run(lambda _: note_access(self._service, self._by, "stream", **asked))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _message(event: dict[str, Any]) -> bytes:
    """JSON has no line ends of its own, so it is one line of data."""
    return b"id: %s\ndata: %s\n\n" % (str(event["id"]).encode(), to_json(event))
