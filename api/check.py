"""`GET /api/auth/session` without FastAPI's dependencies and response model: the one call of every request (D12).

It answers what the route in `auth.py` answers; tests send every credential to both.
"""

from pydantic_core import to_json
from starlette.datastructures import State
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from api.credentials import own_session, resolve
from api.errors import Problem, answer_error
from api.service import Service
from domain.errors import LedgerError

PATH = "/api/auth/session"


class SessionCheck:
    """An ASGI application for the requests that it `takes`; `state` is the application's, complete once it runs."""

    path_format = PATH  # what the access log calls its route

    def __init__(self, state: State) -> None:
        self._state = state

    def takes(self, scope: Scope) -> bool:
        """Whether this is a check. What brings a body or a query is left to the route, which judges both."""
        return scope["path"] == PATH and scope["method"] == "GET" and not (scope["query_string"] or _brings_body(scope))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self
        try:
            body = await self._answer(scope)
        except (Problem, LedgerError) as error:
            response = await answer_error(Request(scope), error)
            await response(scope, receive, send)
            return
        headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope) -> bytes:
        state = self._state
        service: Service = state.service
        session = own_session(await resolve(state, scope))
        shown = await state.presenter.one(session, session.session_id)
        precision = service.ledger.limits.touch_interval_of(session.timeouts)
        return to_json({"session": shown, "user_id": session.user_id, "touch_precision_seconds": precision})


def _brings_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )
