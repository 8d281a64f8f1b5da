"""What an auditor asks for, as it comes in a query: by type, user, session, actor and time."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from api.names import Documented, UserId
from api.parameters import Uuid, refused
from projections.audit_filter import AuditFilter, event_types
from projections.moments import first_moment, last_moment
from store.clock import to_micros

_ACTOR = (
    r"^(self|operator|user:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|key:([0-9a-f]{12}|bootstrap)|policy:[a-z-]{1,64})$"
)
"""Nothing that could be a person's own name: the question is recorded."""


class _EventType:
    """A type that nobody knows would find nothing, which an auditor must not take for an answer."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(core), "enum": [*event_types()]}


def _known(event_type: str) -> str:
    if event_type not in event_types():
        raise ValueError("no such type of event; GET /api/audit/events names those that there are")
    return event_type


def _checked(read: Callable[[str], datetime]) -> AfterValidator:
    def check(text: str) -> str:
        try:
            read(text)
        except ValueError as error:
            raise ValueError(f"{error}, nor a date (in a query, write + as %2B)") from None
        return text

    return AfterValidator(check)


_Time = Documented(anyOf=[{"format": "date"}, {"format": "date-time"}])
_EXACT = "As RFC 3339 writes it, or a date, which is that day in UTC. Compared with `recorded_at`."


class EventQuestion(BaseModel):
    """Which events of a user, or of all; all that is given must hold. What nobody knows is refused, not overlooked."""

    model_config = ConfigDict(extra="forbid")

    event_type: Annotated[str, AfterValidator(_known), _EventType()] | None = Field(
        None, description="One type of event.", examples=["SessionCreated"]
    )
    session_id: Uuid | None = Field(
        None, description="Which session they are about.", examples=["6f1c7a52-93f4-4f0e-9d7b-0c6a7e1f2b3d"]
    )
    actor: Annotated[str, StringConstraints(pattern=_ACTOR)] | None = Field(
        None, description="Who acted, as events name actors.", examples=["policy:end-sessions-on-timeout"]
    )
    start_date: Annotated[str, _checked(first_moment), _Time] | None = Field(
        None, description=f"The first moment. {_EXACT}", examples=["2026-11-26"]
    )
    end_date: Annotated[str, _checked(last_moment), _Time] | None = Field(
        None, description=f"The last moment, itself included. {_EXACT}", examples=["2026-11-26T12:00:00Z"]
    )

    def about(self, stream: UUID | None) -> AuditFilter:
        """The same for the read model, about one user. Raises `invalid-request` for a start after the end."""
        start = self.start_date and first_moment(self.start_date)
        end = self.end_date and last_moment(self.end_date)
        if start and end and start > end:
            raise refused("start_date", "lies after end_date")
        return AuditFilter(
            self.event_type,
            stream,
            self.session_id,
            self.actor,
            to_micros(start) if start else None,
            to_micros(end) if end else None,
        )


class AuditQuestion(EventQuestion):
    """The same, and the user whom they are about."""

    user_id: UserId | None = Field(None, description="Whom they are about.", examples=["alice@example.com"])

    def asks(self, pseudonym: Callable[[str], UUID]) -> AuditFilter:
        """The same for the read model. Raises `invalid-request` for a start after the end."""
        return self.about(pseudonym(self.user_id) if self.user_id is not None else None)
