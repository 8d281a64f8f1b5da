"""Names as an operator gives them: the rule that HTTP has for a user, and one for all others."""

from typing import Annotated

import typer
from pydantic import StringConstraints, TypeAdapter, ValidationError

from api.names import NewName, UserId

_USER: TypeAdapter[str] = TypeAdapter(UserId)
_NAME: TypeAdapter[str] = TypeAdapter(Annotated[NewName, StringConstraints(max_length=100)])


def user_id(text: str) -> str:
    """What HTTP takes for a user's id. Raises `BadParameter`, also for bytes that are not UTF-8."""
    return _checked(_USER, text)


def name(text: str) -> str:
    """Of a key, an actor, a projection or a policy: 1 to 100 printable characters. Raises `BadParameter`."""
    return _checked(_NAME, text)


def _checked(rule: TypeAdapter[str], text: str) -> str:
    try:
        return rule.validate_python(text)
    except ValidationError as error:
        raise typer.BadParameter(error.errors()[0]["msg"]) from None
