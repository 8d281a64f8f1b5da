"""`GET /api/audit/export`: the log, or a part of it, as a stream. Read from the log itself, so it never lags."""

import logging
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import Field
from starlette.requests import Request as HttpRequest

from api.audit import Auditor
from api.audit_access import note_access
from api.audit_filter import AuditQuestion
from api.body import StrictRoute
from api.credentials import Authorized, still_holds
from api.errors import problem_responses
from api.long_answers import BrokenOff, LongAnswer, Places
from api.openapi import BEARER, USER_PROBLEMS, operation_id
from api.parameters import PlainDigits
from api.service import Service
from domain.errors import LedgerError
from projections.cloud_events import Unreadable
from projections.export import Chunk, Format, export

router = APIRouter(tags=["audit"], route_class=StrictRoute, generate_unique_id_function=operation_id)

MEDIA_TYPES = {Format.NDJSON: "application/x-ndjson", Format.CSV: "text/csv; charset=utf-8; header=present"}
NAMES = {Format.NDJSON: "ledger.ndjson", Format.CSV: "ledger-not-evidence.csv"}
SELECTION = "ledger-selection.ndjson"

MOST, MOST_EACH = 8, 2
"""In a process at a time, and of one reader. What a client does not read stays in memory, a page of it."""

_log = logging.getLogger("ledger.export")


class ExportQuestion(AuditQuestion):
    """Which events, as what, and where to go on."""

    format: Format = Field(
        Format.NDJSON, description="CloudEvents with the leaf bytes, which can be verified; or a table, for reading."
    )
    after: Annotated[int, Field(ge=0, le=2**63 - 1), PlainDigits] = Field(
        0, description="Go on behind this position: that of the last whole line."
    )


_ANSWER: dict[int | str, Any] = {
    200: {
        "description": "A line for each event, oldest first, up to where the log ended when the call came. "
        "An answer that breaks off is not complete: go on behind the `position` of its last whole line.",
        "headers": {
            "Content-Disposition": {
                "description": "What to call it: a table says in its name that it is no evidence, "
                "and a selection, whose lines say `selection`, that not every event was asked for.",
                "schema": {"type": "string"},
                "example": 'attachment; filename="ledger.ndjson"',
                "required": True,
            }
        },
        "content": {media_type: {"schema": {"type": "string"}} for media_type in MEDIA_TYPES.values()},
    }
}


@router.get("/api/audit/export", summary="Export the audit log", response_class=StreamingResponse,
            responses={**problem_responses(*USER_PROBLEMS, "busy"), **_ANSWER}, openapi_extra=BEARER)  # fmt: skip
async def export_audit(
    http: HttpRequest,
    by: Auditor,
    asked: Annotated[ExportQuestion, Query()],
) -> StreamingResponse:
    """Every event that fits, whatever their number. What is personal stays sealed, for everybody."""
    service: Service = http.app.state.service
    wanted = asked.asks(service.keys.pseudonym)
    told = {"format": asked.format, "after": asked.after or None, **wanted.given()}
    await service.long_reads.run(lambda _: note_access(service, by, "export", **told))
    exports: Places = http.app.state.exports
    exports.enter(by.name)
    try:
        chunks = export(service.database, wanted, asked.format, http.app.state.origin, asked.after)
        first = await service.exporting.run(partial(next, chunks))  # what cannot be read is answered with a problem
    except BaseException:
        exports.leave(by.name)
        raise
    name = SELECTION if asked.format is Format.NDJSON and wanted.selection() else NAMES[asked.format]
    headers = {"Content-Type": MEDIA_TYPES[asked.format], "Content-Disposition": f'attachment; filename="{name}"'}
    return LongAnswer(_lines(http, by, first, chunks), http, by, exports, headers)


async def _lines(http: HttpRequest, by: Authorized, first: Chunk, chunks: Iterator[Chunk]) -> AsyncIterator[bytes]:
    """Made in worker threads. Raises `BrokenOff`."""
    service: Service = http.app.state.service
    exports: Places = http.app.state.exports
    yield first.lines
    try:
        while chunk := await service.exporting.run(partial(next, chunks, None)):
            if exports.closed.is_set() or not await still_holds(http, by):
                raise BrokenOff("The credential was revoked meanwhile, or the service ends.")
            if chunk.lines:
                yield chunk.lines
    except (LedgerError, Unreadable, BrokenOff) as error:
        _log.error("an export broke off", extra={"fields": {"error": repr(error)}})
        raise BrokenOff from error
