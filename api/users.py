"""What an administrator does to a user: see his sessions, end them, disable him, enable him, forget him."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import Request as HttpRequest

from api.as_of import AnyListing, sessions_then
from api.body import StrictRoute
from api.credentials import Authorized, Needs, insufficient
from api.errors import Problem, problem_responses
from api.listing import sessions_of
from api.names import UserId
from api.openapi import BEARER, USER_PROBLEMS, WRITING, operation_id
from api.schemas import ErasedUser, Json, Message, RevokedSessions, SessionList, UserState
from api.service import durable
from api.sessions import SessionId, owned_session
from domain.events import EndReason
from store.api_keys import Scope


class _UserId(PathConvertor):
    """Ids may hold slashes, so they take the rest of the path up to the fixed end of each route; line ends, too."""

    regex = "(?s:.*)"


class _ErasableId(PathConvertor):
    """The rest of the path, unless it is another call's path, or a slip in one: `alice/sessions/`, `alice/`."""

    regex = "(?is:(?!(?:.*/)?(?:sessions|audit|disable|enable)(?:/|$))(?:.*[^/])?)"


register_url_convertor("user_id", _UserId())
register_url_convertor("erasable_id", _ErasableId())

router = APIRouter(
    prefix="/api/users", tags=["users"], route_class=StrictRoute, generate_unique_id_function=operation_id
)

Admin = Annotated[Authorized, Depends(Needs(Scope.USERS_ADMIN))]
AdminOrAuditor = Annotated[Authorized, Depends(Needs(Scope.USERS_ADMIN, Scope.AUDIT_READ))]
Id = Annotated[
    UserId, Path(description="The user's id, as the sign-in service gave it.", examples=["alice@example.com"])
]


def _documented(*problems: str) -> dict[str, Any]:
    return {"responses": problem_responses(*problems), "openapi_extra": BEARER}


@router.post("/{user_id:user_id}/disable", summary="Disable a user", **_documented(*WRITING, "user-erased"))
async def disable_user(http: HttpRequest, user_id: Id, by: Admin) -> UserState:
    """From the answer on none of his sessions is valid and he cannot sign in. Repeating it changes nothing."""
    await durable(http.app.state.service.ledger.disable_user(user_id, await by.command()))
    return UserState(message="User disabled", user_id=user_id, disabled=True)


@router.post("/{user_id:user_id}/enable", summary="Enable a user", **_documented(*WRITING, "user-erased"))
async def enable_user(http: HttpRequest, user_id: Id, by: Admin) -> UserState:
    """He may sign in again; no old session revives. Repeating it, or enabling an unknown user, records nothing."""
    await durable(http.app.state.service.ledger.enable_user(user_id, await by.command()))
    return UserState(message="User enabled", user_id=user_id, disabled=False)


@router.get("/{user_id:user_id}/sessions", summary="List a user's sessions", response_model=SessionList,
            **_documented(*USER_PROBLEMS, "invalid-cursor", "busy"))  # fmt: skip
async def list_user_sessions(http: HttpRequest, user_id: Id, by: AdminOrAuditor, asked: AnyListing) -> Json:
    """As the user himself sees them; an unknown user has none. With `as_of`, from the log: as it was at that moment.

    `audit:read` is enough for that; `ip_address` and `user_agent` are shown with `audit:personal` or `users:admin`.
    """
    if asked.as_of is not None:
        return await sessions_then(http, asked, asked.as_of, user_id, by)
    if Scope.USERS_ADMIN not in by.scopes:
        raise insufficient(Scope.USERS_ADMIN)
    return await sessions_of(http, asked, http.app.state.service.keys.pseudonym(user_id), by.session_id)


@router.delete("/{user_id:user_id}/sessions", summary="End all sessions of a user", **_documented(*WRITING))
async def revoke_user_sessions(http: HttpRequest, user_id: Id, by: Admin) -> RevokedSessions:
    """End every session of the user in one append; an unknown user has none."""
    service = http.app.state.service
    stream = service.keys.pseudonym(user_id)
    revoking = service.ledger.revoke_all_sessions(stream, EndReason.REVOKED_BY_ADMIN, await by.command())
    count = (await durable(revoking)).result
    return RevokedSessions(message="Sessions revoked", revoked_count=count)


@router.delete("/{user_id:user_id}/sessions/{session_id}", summary="End one session of a user",
               **_documented(*WRITING, "session-not-found"))  # fmt: skip
async def revoke_user_session(http: HttpRequest, user_id: Id, session_id: SessionId, by: Admin) -> Message:
    """End one session of the user; one that has ended already is answered alike."""
    service = http.app.state.service
    with http.app.state.guesses.looking_up(by.name):
        view = await owned_session(service.sessions, service.keys.pseudonym(user_id), session_id)
    revoking = service.ledger.revoke_session(
        view.stream, view.session_id, EndReason.REVOKED_BY_ADMIN, await by.command()
    )
    await durable(revoking)
    return Message(message="Session revoked")


@router.delete("/{user_id:erasable_id}", summary="Erase a user", **_documented(*WRITING, "user-erased"))
async def erase_user(http: HttpRequest, user_id: Id, by: Admin) -> ErasedUser:
    """Forget the user for good: his sessions end, his key is destroyed, and he is never let in again.

    It is done when this answers; repeating it changes nothing. A user who is unknown here is refused from then on, too.
    A slash in the id must come as `%2F`: a slip in another call's path, as in `alice/sessions/`, erases nobody. An id
    that reads like such a path (`alice/sessions`) is erased by `./scripts/ledger erase-user` only.
    """
    _refuse_segments(http)
    service = http.app.state.service
    await durable(service.ledger.erase_user(user_id, await by.command()))
    await service.erasing.run(partial(service.erasure.carry_out, service.keys.pseudonym(user_id)))
    return ErasedUser(message="User erased", user_id=user_id, erased=True)


def _refuse_segments(http: HttpRequest) -> None:
    """An id that cannot be undone with is one segment of the path as it was sent, before any `%2F` was decoded."""
    if http.scope["raw_path"].removeprefix(b"/api/users/").count(b"/"):
        raise Problem("not-found")
