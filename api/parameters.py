"""Parameters, read strictly by one rule for all calls: what nobody knows, or could be read in two ways, is refused.

A wish that is overlooked can do harm: `?dry_run=true` must not erase. So it is with unknown members of a body (API-12).
"""

import re
from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from uuid import UUID

from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import ParamTypes
from fastapi.routing import APIRoute
from pydantic import BeforeValidator
from starlette.requests import Request
from starlette.responses import Response

from api.errors import Problem
from api.ids import uuid_of

_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")


class KnownParameters(APIRoute):
    """A route that refuses what its description does not name in the query, and parameters and headers that come twice.

    Raises `invalid-request`, which names the first of them, before anything is done; and `not-found` for a path whose
    fixed slashes came encoded: `alice%2Fsessions` is an id, and not alice's sessions.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, queries, headers = super().get_route_handler(), *_names(self.dependant)
        slashes = self.path_format.count("/")

        async def handle_known(request: Request) -> Response:
            if request.scope["raw_path"].count(b"/") < slashes:
                raise Problem("not-found")
            _refuse_unknown(request, queries)
            _refuse_doubled([name for name, _ in request.query_params.multi_items()], queries)
            _refuse_doubled(request.headers.keys(), headers)
            return await handle(request)

        return handle_known


def _names(dependant: Dependant) -> tuple[frozenset[str], frozenset[str]]:
    """What a call knows in a query, and among headers. Fields of a model have no place: here all are in the query."""
    fields = [(getattr(field.field_info, "in_", ParamTypes.query), field.alias) for field in get_flat_params(dependant)]
    queries = frozenset(name for place, name in fields if place is ParamTypes.query)
    return queries, frozenset({"content-type", *(name.lower() for place, name in fields if place is ParamTypes.header)})


def _refuse_unknown(request: Request, known: frozenset[str]) -> None:
    for name in request.query_params:
        if name not in known:
            raise refused(name[:64], "is no parameter of this call")


def _refuse_doubled(names: list[str], known: frozenset[str]) -> None:
    """Of a parameter that comes twice, nothing says which one was meant."""
    for name in known:
        if names.count(name) > 1:
            raise refused(name, "occurs twice")


def refused(parameter: str, detail: str) -> Problem:
    fault = {"parameter": parameter, "detail": detail}
    return Problem("invalid-request", f"{parameter}: {detail}", errors=[fault])


def _number(text: object) -> object:
    """Left alone, pydantic takes `1_0`, `+5`, ` 5`, `5.0` and the digits of every script."""
    if isinstance(text, str) and not _NUMBER.fullmatch(text):
        raise ValueError("not a whole number in plain digits")
    return text


def _uuid(text: object) -> object:
    """Left alone, pydantic takes braces, `urn:uuid:`, and no hyphens."""
    return uuid_of(text) if isinstance(text, str) else text


PlainDigits = BeforeValidator(_number)
"""Of an `int`; comes after its bounds, or the OpenAPI document would not tell them."""

Uuid = Annotated[UUID, BeforeValidator(_uuid)]
