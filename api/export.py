"""`GET /api/audit/export`: the log, or a part of it, as a stream. Read from the log itself, so it never lags."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import Field
from starlette.requests import Request as HttpRequest

from api.audit_access import note_access
from api.audit_filter import AuditQuestion, refuse_doubled
from api.body import StrictRoute
from api.credentials import Authorized, Needs
from api.errors import problem_responses
from api.openapi import BEARER, USER_PROBLEMS, operation_id
from api.service import Service
from projections.export import Chunk, Format, export
from store.api_keys import Scope

router = APIRouter(tags=["audit"], route_class=StrictRoute, generate_unique_id_function=operation_id)

MEDIA_TYPES = {Format.NDJSON: "application/x-ndjson", Format.CSV: "text/csv; charset=utf-8; header=present"}
NAMES = {Format.NDJSON: "ledger.ndjson", Format.CSV: "ledger-not-evidence.csv"}

_log = logging.getLogger("ledger.export")


class ExportQuestion(AuditQuestion):
    """Which events, as what, and where to go on."""

    format: Format = Field(
        Format.NDJSON, description="CloudEvents with the leaf bytes, which can be verified; or a table, for reading."
    )
    after: int = Field(0, ge=0, le=2**63 - 1, description="Go on behind this position: that of the last whole line.")


_ANSWER: dict[int | str, Any] = {
    200: {
        "description": "A line for each event, oldest first, up to where the log ended when the call came. "
        "An answer that breaks off is not complete: go on behind the `position` of its last whole line.",
        "headers": {
            "Content-Disposition": {
                "description": "What to call it: a table says in its name that it is no evidence.",
                "schema": {"type": "string"},
                "example": 'attachment; filename="ledger.ndjson"',
                "required": True,
            }
        },
        "content": {media_type: {"schema": {"type": "string"}} for media_type in MEDIA_TYPES.values()},
    }
}


@router.get("/api/audit/export", summary="Export the audit log", response_class=StreamingResponse,
            responses={**problem_responses(*USER_PROBLEMS), **_ANSWER}, openapi_extra=BEARER)  # fmt: skip
async def export_audit(
    http: HttpRequest,
    by: Annotated[Authorized, Depends(Needs(Scope.AUDIT_READ))],
    asked: Annotated[ExportQuestion, Query()],
) -> StreamingResponse:
    """Every event that fits, whatever their number. What is personal stays sealed, for everybody."""
    refuse_doubled(http)
    service: Service = http.app.state.service
    wanted = asked.asks(service.keys.pseudonym)
    told = {"format": asked.format, "after": asked.after or None, **wanted.given()}
    await asyncio.to_thread(note_access, service, by, "export", **told)
    chunks = export(service.database, wanted, asked.format, http.app.state.origin, asked.after)
    first = await asyncio.to_thread(next, chunks)  # what cannot be read at all is still answered with a problem
    headers = {"Content-Disposition": f'attachment; filename="{NAMES[asked.format]}"'}
    return StreamingResponse(_lines(first, chunks), media_type=MEDIA_TYPES[asked.format], headers=headers)


def _lines(first: Chunk, chunks: Iterator[Chunk]) -> Iterator[bytes]:
    """Made in worker threads. An error breaks the answer off: it gets no end, so that nobody takes it for whole."""
    yield first.lines
    try:
        for chunk in chunks:
            if chunk.lines:
                yield chunk.lines
    except Exception as error:
        _log.error("an export broke off", extra={"fields": {"error": repr(error)}})
        raise
