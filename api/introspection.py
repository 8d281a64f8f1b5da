"""`POST /oauth2/introspect`: what a token is good for now, told to a service (RFC 7662, TOK-08)."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request as HttpRequest

from api.access_tokens import Claims
from api.credentials import Needs, Token
from api.errors import Problem, problem_responses
from api.forms import read_form
from api.openapi import BEARER, USER_PROBLEMS, operation_id
from api.parameters import KnownParameters
from api.schemas import TOKEN_EXAMPLE, Introspection
from projections.session_views import SessionView
from store.api_keys import Scope

router = APIRouter(
    prefix="/oauth2", tags=["services"], route_class=KnownParameters, generate_unique_id_function=operation_id
)

_PROBLEMS = ("malformed-form", *(kind for kind in USER_PROBLEMS if kind != "malformed-json"))

_FORM = {
    "required": True,
    "content": {
        "application/x-www-form-urlencoded": {
            "schema": {
                "type": "object",
                "required": ["token"],
                "additionalProperties": {"type": "string", "description": "Ignored."},
                "properties": {
                    "token": {
                        "type": "string",
                        "minLength": 1,
                        "description": "A session token, or a JWT of the trusted issuer.",
                        "examples": [TOKEN_EXAMPLE],
                    },
                    "token_type_hint": {
                        "type": "string",
                        "description": "Not needed: tokens are told apart by their form.",
                        "examples": ["access_token"],
                    },
                },
            }
        }
    },
}


@router.post("/introspect", summary="Ask what a token is good for", responses=problem_responses(*_PROBLEMS),
             response_model_exclude_none=True, openapi_extra={**BEARER, "requestBody": _FORM})  # fmt: skip
async def introspect(
    http: HttpRequest, by: Annotated[object, Depends(Needs(Scope.TOKENS_INTROSPECT))]
) -> Introspection:
    """Whether a session token or an access token is active now, and whose it is.

    Whatever is not valid is answered alike, `{"active":false}`, for whatever reason. API keys are no tokens. Asking
    does not count as a use of the session. An answer holds for the moment it was given; one that is kept is a
    revocation that comes late.
    """
    presented = (await read_form(http)).get("token")
    if presented is None:
        raise Problem("malformed-form", "The form has no token.")
    return Introspection(**_told(await http.app.state.credentials.token(presented)))


def _told(token: Token | None) -> dict[str, Any]:
    if token is None:
        return {"active": False}
    of_session = _of_session(token.session) if token.session else {}
    of_claims = _of_claims(token.claims) if token.claims else {}
    told = {"active": True, **of_session, **of_claims, "token_type": "Bearer"}
    if of_session and of_claims:
        told["exp"] = min(of_session["exp"], of_claims["exp"])
    return told


def _of_session(session: SessionView) -> dict[str, Any]:
    """As the ledger has recorded it."""
    return {
        "sub": session.user_id,
        "sid": session.session_id,
        "iat": _seconds(session.created_at),
        "exp": _seconds(session.expires_at),
        "auth_time": session.auth_time and _seconds(session.auth_time),
        "amr": session.amr or None,
    }


def _of_claims(claims: Claims) -> dict[str, Any]:
    """As the token's issuer has signed it."""
    return {
        "iss": claims.issuer,
        "sub": claims.subject,
        "client_id": claims.client_id,
        "scope": " ".join(sorted(claims.scopes)) or None,
        "iat": claims.issued_at and _seconds(claims.issued_at),
        "exp": _seconds(claims.expires_at),
        "acr": claims.acr,
    }


def _seconds(moment: datetime) -> int:
    """Since 1970, rounded down (RFC 7662 §2.2): an answer never says that a token lasts longer than it does."""
    return int(moment.timestamp())
