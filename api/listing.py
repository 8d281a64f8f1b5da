"""Lists of sessions, the same for a user and for an administrator: all active ones, or a page of the history."""

from typing import Annotated, Literal
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field
from starlette.requests import Request

from api.cursors import Cursors
from api.parameters import PlainDigits
from api.presenting import Presenter
from api.schemas import Json
from projections.session_views import SessionQueries

NEWEST = 2**31 - 1  # no version is above

Status = Literal["active", "ended", "all"]


class Asked(BaseModel):
    """What a list asks for: `status`, and for the history `limit` and `cursor`."""

    status: Status = Field("active", description="Which sessions; the active ones are never paged.")
    limit: Annotated[int, Field(ge=1, le=100), PlainDigits] = Field(50, description="Rows of a page of the history.")
    cursor: str | None = Field(None, max_length=64, description="From the `Link` of the page before.", examples=[None])


Listing = Annotated[Asked, Query()]


async def sessions_of(http: Request, asked: Asked, stream: UUID, current: UUID | None) -> Json:
    """The members of a `SessionList`: all active sessions of a user, or a page of his history."""
    state = http.app.state
    sessions: SessionQueries = state.service.sessions
    presenter: Presenter = state.presenter
    if asked.status == "active":
        return Json({"sessions": await presenter.active(await sessions.active(stream), current)})
    cursors: Cursors = state.cursors
    before = cursors.read(str(stream), asked.status, asked.cursor) if asked.cursor is not None else NEWEST
    ended_only = asked.status == "ended"
    rows = await sessions.history(stream, ended_only=ended_only, before=before, limit=asked.limit + 1)
    page = rows[: asked.limit]
    answer = Json({"sessions": await presenter.history(page, current)})
    if len(rows) > asked.limit:
        answer.headers["Link"] = _next(http, asked, cursors.after(str(stream), asked.status, page[-1].created_version))
    return answer


def _next(http: Request, asked: Asked, cursor: str) -> str:
    """RFC 8288; relative, so it holds behind any proxy."""
    query = urlencode({"status": asked.status, "limit": asked.limit, "cursor": cursor})
    path = http.scope.get("raw_path", b"").decode("latin-1").partition("?")[0]
    return f'<{path}?{query}>; rel="next"'
