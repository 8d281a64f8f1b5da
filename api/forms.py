"""A form, read strictly: what two parsers cannot read in two ways, or a problem (RFC 6749 §3.2, T-14)."""

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request

from api.errors import Problem

_MEDIA_TYPE = re.compile(r'application/x-www-form-urlencoded(\s*;\s*charset="?utf-8"?)?\s*', re.IGNORECASE)
_ENCODED = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*")


async def read_form(request: Request) -> Mapping[str, str]:
    """The fields of the body. One without a value counts as left out, as RFC 6749 §3.2 has it.

    Raises `unsupported-media-type` for what is no form, and `malformed-form` for one that is not UTF-8, that is wrongly
    encoded, or that has a field twice.
    """
    body = await request.body()
    if not _MEDIA_TYPE.fullmatch(request.headers.get("content-type", "")):
        raise Problem("unsupported-media-type", "Send a form, as application/x-www-form-urlencoded, in UTF-8.")
    fields = _fields(body)
    if len(dict(fields)) < len(fields):
        raise Problem("malformed-form", "A field of the form occurs twice.")
    return {name: value for name, value in fields if value}


def _fields(body: bytes) -> list[tuple[str, str]]:
    try:
        text = body.decode("utf-8")
        if _ENCODED.fullmatch(text):
            return parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        pass
    raise Problem("malformed-form", "The form is not name=value pairs, percent-encoded in UTF-8.")
