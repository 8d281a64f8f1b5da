"""The per-request check, and signing out."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response

from api.body import StrictRoute, accepts_form
from api.credentials import User, refuse_cross_site
from api.errors import Problem, problem_responses
from api.openapi import SESSION, USER_PROBLEMS, WRITING, operation_id
from api.schemas import CurrentSession, SessionOut
from api.service import durable
from domain.ledger import Request

router = APIRouter(prefix="/api/auth", tags=["auth"], route_class=StrictRoute, generate_unique_id_function=operation_id)

CLEAR_SITE_DATA = '"cache", "cookies", "storage"'


@router.get("/session", summary="Check the session behind this request",
            responses=problem_responses(*USER_PROBLEMS), openapi_extra=SESSION)  # fmt: skip
async def check_session(http: HttpRequest, user: User) -> CurrentSession:
    """Whether the credential's session is active now, and whose it is. 401 when it is not, for whatever reason."""
    state = http.app.state
    session = await state.presenter.one(user.session, user.session.session_id)
    return CurrentSession.model_construct(
        session=SessionOut.model_construct(**session),
        user_id=user.session.user_id,
        touch_precision_seconds=state.service.ledger.limits.touch_interval_of(user.session.timeouts),
    )


SIGNED_OUT: dict[int | str, dict[str, Any]] = {
    204: {"description": "No session of this credential is active; the cookie is cleared"},
    303: {"description": "The same, for a browser's form post: back to `/`"},
    **problem_responses(
        *(
            kind
            for kind in WRITING
            if kind not in ("unauthenticated", "invalid-credential", "insufficient-scope", "too-many-guesses")
        )
    ),
}


A_FORM = {"description": "A form's fields are not read.", "content": {"application/x-www-form-urlencoded": {}}}


@router.post("/signout", status_code=204, summary="Sign out", responses=SIGNED_OUT, response_class=Response,
             openapi_extra={"security": [{}, *SESSION["security"]], "requestBody": A_FORM})  # fmt: skip
@accepts_form
async def sign_out(http: HttpRequest) -> Response:
    """End the session of this credential. Answers alike when it was dead, unknown or missing: it is not active now.

    When the end cannot be made durable the answer is 503, and the cookie stays so that the call can be repeated.
    """
    await _end_session(http)
    if http.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        response: Response = RedirectResponse("/", status_code=303)
    else:
        response = Response(status_code=204)
    response.headers["Set-Cookie"] = http.app.state.cookie.cleared
    response.headers["Clear-Site-Data"] = CLEAR_SITE_DATA
    return response


async def _end_session(http: HttpRequest) -> None:
    state = http.app.state
    if "authorization" not in http.headers:
        refuse_cross_site(http.scope)  # also without a cookie: `SameSite` held it back, and the answer would clear it
    try:
        caller = await state.credentials.caller(http.scope, signing_out=True)
    except Problem as problem:
        if problem.kind in ("unauthenticated", "invalid-credential"):
            return
        raise
    if caller.session:
        session = caller.session
        request = Request("self", http.state.request_id)
        await durable(state.service.ledger.sign_out(session.stream, session.session_id, request))
