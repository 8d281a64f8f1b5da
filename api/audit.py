"""What auditors ask over HTTP. Reads are made in worker threads, recorded first, and say how fresh they are."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field
from sqlalchemy import Connection
from starlette.requests import Request as HttpRequest

from api.audit_access import note_access, sees_people
from api.audit_filter import AuditQuestion, EventQuestion
from api.audit_presenting import AuditPresenter
from api.body import StrictRoute
from api.credentials import Authorized, Needs
from api.cursors import Cursors
from api.errors import Problem, problem_responses
from api.openapi import BEARER, USER_PROBLEMS, operation_id
from api.parameters import PlainDigits, Uuid, refused
from api.schemas import AuditEventAnswer, AuditEventTypes, AuditPage, Json
from api.service import Service
from api.users import Id
from projections.audit import Freshness, by_event_id, counts, freshness, newest
from projections.audit_filter import AuditFilter
from store.api_keys import Scope

T = TypeVar("T")

DEEPEST = 10_000
"""Rows that pages by number lead to: each of them is read again for every later page."""

router = APIRouter(tags=["audit"], route_class=StrictRoute, generate_unique_id_function=operation_id)

Auditor = Annotated[Authorized, Depends(Needs(Scope.AUDIT_READ))]
_PROBLEMS = (*USER_PROBLEMS, "busy")


class Paging(BaseModel):
    """Which page of an answer: by `cursor`, or, near its beginning, by number."""

    page: Annotated[int, Field(ge=1), PlainDigits] | None = Field(
        None, description="Which page; only the first 10,000 rows are had so.", examples=[None]
    )
    limit: Annotated[int, Field(ge=1, le=100), PlainDigits] = Field(50, description="Rows of a page.")
    cursor: str | None = Field(None, max_length=64, description="From the `Link` of the page before.", examples=[None])

    def offset(self) -> int:
        """Rows before the page."""
        if self.page is not None and self.cursor is not None:
            raise refused("page", "goes with no cursor")
        offset = ((self.page or 1) - 1) * self.limit
        if offset + self.limit > DEEPEST:
            raise Problem("page-too-deep", f"Pages by number end at row {DEEPEST}; go on with the cursor in each Link.")
        return offset


class AuditSearch(AuditQuestion, Paging):
    """A page of the events that fit."""


class UserAuditSearch(EventQuestion, Paging):
    """A page of one user's events that fit."""


def _documented(*problems: str) -> dict[str, Any]:
    return {"responses": problem_responses(*_PROBLEMS, *problems), "openapi_extra": BEARER}


@router.get("/api/audit", summary="Search the audit log", response_model=AuditPage,
            **_documented("invalid-cursor", "page-too-deep"))  # fmt: skip
async def search_audit(http: HttpRequest, by: Auditor, asked: Annotated[AuditSearch, Query()]) -> Json:
    """The events that fit, newest first. The answer has every event of the log up to `position`."""
    service: Service = http.app.state.service
    return await _page(http, by, asked, asked.asks(service.keys.pseudonym))


@router.get("/api/audit/events", summary="Types of events, with their numbers", response_model=AuditEventTypes,
            **_documented())  # fmt: skip
async def count_audit_events(http: HttpRequest, by: Auditor) -> Json:
    """Every type of event that the log has, and how many there are of each."""
    counted, fresh = await _ask(http, by, counts, call="events")
    types = [{"event_type": name, "count": number} for name, number in counted.items()]
    return Json({"event_types": types, **fresh._asdict()})


@router.get("/api/audit/{event_id}", summary="One event of the audit log", response_model=AuditEventAnswer,
            **_documented("event-not-found"))  # fmt: skip
async def read_audit_event(
    http: HttpRequest,
    by: Auditor,
    event_id: Annotated[Uuid, Path(description="Its `id`.", examples=["01936f0e-8f5a-7c11-9d3e-5a1f0c2b7a10"])],
) -> Json:
    """One event, by its id."""
    presenter: AuditPresenter = http.app.state.audit_presenter

    def read(connection: Connection) -> list[dict[str, Any]]:
        row = by_event_id(connection, event_id)
        return presenter.shown(connection, [row] if row else [], personal=sees_people(by))

    found, fresh = await _ask(http, by, read, call="event", event_id=event_id)
    if not found:
        raise Problem("event-not-found", "The audit log has no event of this id.")
    return Json({"event": found[0], **fresh._asdict()})


@router.get("/api/users/{user_id:user_id}/audit", summary="The audit log of one user", response_model=AuditPage,
            **_documented("invalid-cursor", "page-too-deep"))  # fmt: skip
async def search_user_audit(
    http: HttpRequest, user_id: Id, by: Auditor, asked: Annotated[UserAuditSearch, Query()]
) -> Json:
    """The events about one user that fit, newest first; an unknown user has none."""
    service: Service = http.app.state.service
    return await _page(http, by, asked, asked.about(service.keys.pseudonym(user_id)))


async def _page(http: HttpRequest, by: Authorized, asked: Paging, wanted: AuditFilter) -> Json:
    """One row more than asked for is read, to see whether there is a next page: rows are never counted."""
    cursors: Cursors = http.app.state.cursors
    presenter: AuditPresenter = http.app.state.audit_presenter
    offset = asked.offset()
    before = cursors.read(by.name, wanted.text(), asked.cursor) if asked.cursor is not None else None

    def read(connection: Connection) -> tuple[list[dict[str, Any]], int | None]:
        rows = newest(connection, wanted, asked.limit + 1, before=before, offset=offset)
        page = rows[: asked.limit]
        shown = presenter.shown(connection, page, personal=sees_people(by))
        return shown, page[-1].position if len(rows) > asked.limit else None

    (events, last), fresh = await _ask(http, by, read, call="search", **wanted.given())
    answer = Json({"events": events, **fresh._asdict()})
    if last is not None:
        answer.headers["Link"] = _next(http, cursors.after(by.name, wanted.text(), last))
    return answer


def _next(http: HttpRequest, cursor: str) -> str:
    """RFC 8288; relative, so it holds behind any proxy. The same question, behind the last row."""
    asked = [(name, value) for name, value in http.query_params.items() if name not in ("page", "cursor")]
    path = http.scope.get("raw_path", b"").decode("latin-1").partition("?")[0]
    return f'<{path}?{urlencode([*asked, ("cursor", cursor)])}>; rel="next"'


async def _ask(
    http: HttpRequest, by: Authorized, read: Callable[[Connection], T], call: str, **asked: Any
) -> tuple[T, Freshness]:
    """Record who asks what, then read. Raises `StoreUnavailable`, also when the first fails, and `LedgerBusy`."""
    service: Service = http.app.state.service

    def recorded(connection: Connection) -> tuple[T, Freshness]:
        note_access(service, by, call, **asked)
        fresh = freshness(connection)
        return read(connection), fresh

    return await service.long_reads.run(recorded)
