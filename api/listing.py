"""Lists of sessions, the same for a user and for an administrator: all active ones, or a page of the history."""

from typing import Annotated, Literal
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from api.cursors import Cursors
from api.presenting import Presenter
from api.schemas import SessionList
from projections.sessions import SessionQueries

Status = Literal["active", "ended", "all"]


class Listing:
    """What a list asks for: `status`, and for the history `limit` and `cursor`."""

    def __init__(
        self,
        request: Request,
        response: Response,
        status: Annotated[Status, Query(description="Which sessions; the active ones are never paged.")] = "active",
        limit: Annotated[int, Query(ge=1, le=100, description="Rows of a page of the history.")] = 50,
        cursor: Annotated[
            str | None, Query(max_length=64, description="From the `Link` of the page before.", examples=[None])
        ] = None,
    ) -> None:
        self._request, self._response = request, response
        self._status, self._limit, self._cursor = status, limit, cursor
        state = request.app.state
        self._sessions: SessionQueries = state.service.sessions
        self._presenter: Presenter = state.presenter
        self._cursors: Cursors = state.cursors

    async def of(self, stream: UUID, current: UUID | None) -> SessionList:
        if self._status == "active":
            active = await self._presenter.active(await self._sessions.active(stream), current)
            return SessionList.model_construct(sessions=active)
        return await self._page(stream, current)

    async def _page(self, stream: UUID, current: UUID | None) -> SessionList:
        before = self._cursors.read(stream, self._status, self._cursor)
        ended_only = self._status == "ended"
        rows = await self._sessions.history(stream, ended_only=ended_only, before=before, limit=self._limit + 1)
        page = rows[: self._limit]
        if len(rows) > self._limit:
            self._link_next(self._cursors.after(stream, self._status, page[-1].created_version))
        return SessionList.model_construct(sessions=await self._presenter.history(page, current))

    def _link_next(self, cursor: str) -> None:
        """RFC 8288; relative, so it holds behind any proxy."""
        query = urlencode({"status": self._status, "limit": self._limit, "cursor": cursor})
        path = self._request.scope.get("raw_path", b"").decode("latin-1").partition("?")[0]
        self._response.headers["Link"] = f'<{path}?{query}>; rel="next"'


SessionListing = Annotated[Listing, Depends()]
