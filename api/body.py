"""Request bodies, read strictly: JSON that two parsers cannot read in two ways, or a problem (API-12, T-14, WEB-06)."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, NoReturn, TypeVar

from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import Response

from api.errors import Problem
from api.parameters import KnownParameters

MAX_DEPTH = 16
MAX_DIGITS = 19  # a signed 64-bit integer has no more

_JSON = re.compile(r'application/json(\s*;\s*charset="?utf-8"?)?\s*', re.IGNORECASE)
_FORM = re.compile(r"application/x-www-form-urlencoded\s*(;.*)?", re.IGNORECASE)
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_NOT_TEXT = re.compile("[\x00\ud800-\udfff]")

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class MalformedJson(ValueError):
    """The bytes are not JSON that this service accepts; the message says what is wrong, and where when known."""


def accepts_form(endpoint: Endpoint) -> Endpoint:
    """Mark an endpoint that browsers may call by a form post; goes below the router's decorator."""
    endpoint.__dict__["accepts_form"] = True
    return endpoint


class StrictRoute(KnownParameters):
    """A route whose body, if there is one, is JSON that passes `parse_json`, and a problem otherwise.

    It is read before FastAPI reads it, because FastAPI turns whatever is raised meanwhile into a 400 of its own.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, form_allowed = super().get_route_handler(), getattr(self.endpoint, "accepts_form", False)
        expects_body = self.body_field is not None

        async def handle_strictly(request: Request) -> Response:
            if expects_body or _announces_body(request):
                request = _StrictRequest(request.scope, request.receive)
                await request.check_body(form_allowed)
                if not expects_body:
                    _refuse_members(await request.json())
            return await handle(request)

        return handle_strictly


def _announces_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def _refuse_members(body: Any) -> None:
    """A route that takes no body knows none of its members: a wish that would be overlooked is refused."""
    if not isinstance(body, dict | None):
        raise RequestValidationError([{"loc": ("body",), "msg": "This call takes no body"}])
    if body:
        raise RequestValidationError(
            [{"loc": ("body", name), "msg": "Extra inputs are not permitted"} for name in body]
        )


class _StrictRequest(Request):
    _json: Any = None

    async def check_body(self, form_allowed: bool) -> None:
        """Raise the problem that the body is, if it is one."""
        body, media_type = await self.body(), self.headers.get("content-type", "")
        if not body or (form_allowed and _FORM.fullmatch(media_type)):
            return
        if not _JSON.fullmatch(media_type):
            raise Problem("unsupported-media-type", "Send the body as application/json, in UTF-8.")
        try:
            self._json = parse_json(body)
        except MalformedJson as error:
            raise Problem("malformed-json", str(error)) from None

    async def json(self) -> Any:
        return self._json


def parse_json(raw: bytes) -> Any:
    """The value of a JSON text (RFC 8259, I-JSON's limits of RFC 7493 §2).

    Raises `MalformedJson` for bytes that are not UTF-8, malformed or deeply nested JSON, members that occur twice,
    numbers that are not finite or too long, and strings with NUL or lone surrogates.
    """
    text = _decoded(raw)
    _check_depth(text)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise MalformedJson(f"{error.msg} at line {error.lineno}, column {error.colno}.") from None
    if "\\u" in text:
        _check_strings(value)
    return value


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedJson(f"The body is not UTF-8 at byte {error.start}.") from None


def _check_depth(text: str) -> None:
    """Count brackets outside strings, because the parser itself would recurse until it breaks."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(text):
        depth += (token[0] in "[{") - (token[0] in "]}")
        if depth > MAX_DEPTH:
            raise MalformedJson(f"Nested deeper than {MAX_DEPTH} levels at character {token.start()}.")


def _check_strings(value: Any) -> None:
    """Escapes can spell what UTF-8 cannot; without an escape neither can be there."""
    for place, text in _strings(value, ""):
        if found := _NOT_TEXT.search(text):
            what = "A NUL character" if found[0] == "\x00" else "Half of a surrogate pair"
            raise MalformedJson(f"{what} in the text at {json.dumps(place[:64] or '/')}.")


def _strings(value: Any, place: str) -> Iterator[tuple[str, str]]:
    match value:
        case str():
            yield place, value
        case dict():
            for key, member in value.items():
                yield place, key
                yield from _strings(member, f"{place}/{key}")
        case list():
            for index, item in enumerate(value):
                yield from _strings(item, f"{place}/{index}")


def _unique_members(members: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(members)
    if len(unique) < len(members):
        [(twice, _)] = Counter(key for key, _ in members).most_common(1)
        raise MalformedJson(f"The member {json.dumps(twice[:64])} occurs twice.")
    return unique


def _short_int(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise MalformedJson(f"A number has more than {MAX_DIGITS} digits.")
    return int(digits)


def _finite_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise MalformedJson("A number is too large.")
    return number


def _no_constant(name: str) -> NoReturn:
    raise MalformedJson(f"{name} is not JSON.")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_members, parse_int=_short_int, parse_float=_finite_float, parse_constant=_no_constant
)
