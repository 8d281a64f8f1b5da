"""A user's sessions as they stood at a moment: read from the log, not from a read model, in a thread for long reads."""

from datetime import datetime
from typing import Annotated

from fastapi import Query
from pydantic import Field
from sqlalchemy import Connection
from starlette.requests import Request

from api.audit_access import note_access
from api.credentials import Authorized
from api.listing import Asked
from api.parameters import refused
from api.presenting import Presenter
from api.schemas import Json, MomentInUrl
from api.service import Service
from projections.as_of import NotYet, Then, at_moment, sessions_as_of
from projections.session_views import SessionView
from store.api_keys import Scope


class AskedOfUser(Asked):
    """What an administrator's list asks for: the same, or a moment."""

    as_of: MomentInUrl | None = Field(
        None,
        description="The sessions that were active at this moment (RFC 3339), and how each has ended since. "
        "Goes with no other parameter.",
        examples=[None],
    )


AnyListing = Annotated[AskedOfUser, Query()]


async def sessions_then(http: Request, asked: AskedOfUser, moment: datetime, user_id: str, by: Authorized) -> Json:
    """The members of a `SessionList`, with the place in the log that they were read at."""
    if asked.model_fields_set != {"as_of"}:
        raise refused("as_of", "goes with no other parameter")
    service: Service = http.app.state.service
    stream = service.keys.pseudonym(user_id)

    def read(connection: Connection) -> tuple[Then, list[SessionView]]:
        now = service.clock.now()
        then = at_moment(connection, moment, now)
        note_access(service, by, "as_of", stream=stream, as_of=moment.isoformat())
        return then, sessions_as_of(connection, service.mapper, stream, user_id, then, now)

    try:
        then, views = await service.long_reads.run(read)
    except NotYet as error:
        raise refused("as_of", "lies in the future") from error
    presenter: Presenter = http.app.state.presenter
    if not by.scopes & {Scope.USERS_ADMIN, Scope.AUDIT_PERSONAL}:  # T-25
        views = [view._replace(client=None) for view in views]
    sessions = await presenter.history(views, by.session_id)
    return Json({"sessions": sessions, "as_of": then.moment, "position": str(then.position)})
