"""Which texts may name a user, a provider or a key: what may be recorded, and what a call may ask for."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, GetJsonSchemaHandler, StringConstraints, TypeAdapter, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

KNOWN_PATTERN = r"^[^\u0000-\u001f\u007f\ufffd]*$"
"""No ASCII control. U+FFFD is what a path that is not UTF-8 was decoded to: two such ids would be one user."""

NEW_PATTERN = r"^[^\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffd]*$"
"""Nor what is unseen, or reorders or breaks the line in a terminal or a log: all controls (ASVS 16.4.1), the separators
U+2028 and U+2029, the bidirectional controls of UAX #9 §2, zero-width and other ignorable ones: the Basic Multilingual
Plane's part of what RFC 8264 §9.13 disallows, or so little used in ids that no id is lost."""


class Documented:
    """Says in the OpenAPI document what a validator of ours demands, as far as JSON Schema can say it."""

    def __init__(self, **keywords: Any) -> None:
        self._keywords = keywords

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(core), **self._keywords}


def _of(pattern: str, told: str) -> tuple[AfterValidator, Documented]:
    allowed = re.compile(pattern)

    def check(text: str) -> str:
        if not allowed.fullmatch(text):
            raise ValueError(told)
        return text

    return AfterValidator(check), Documented(pattern=pattern)


def _utf8_limit(text: str) -> str:
    if len(text.encode()) > 255:
        raise ValueError("at most 255 bytes of UTF-8 are allowed")
    return text


_Short = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_utf8_limit)]

UserId = Annotated[_Short, *_of(KNOWN_PATTERN, "control characters are not allowed, nor what is not UTF-8")]
"""Whom a call is about. What an earlier version let in is still found, and can be erased."""

NewName = Annotated[_Short, *_of(NEW_PATTERN, "characters that are unseen or that move text are not allowed")]
"""What may be recorded: every `NewName` is a `UserId`."""

_NEW_NAME: TypeAdapter[str] = TypeAdapter(NewName)


def may_be_recorded(name: str) -> bool:
    """Whether this is a `NewName`."""
    try:
        _NEW_NAME.validate_python(name)
    except ValidationError:
        return False
    return True
