"""What the OpenAPI document says of every route: who may call it, and how a credential looks."""

from typing import Any

from fastapi import FastAPI

from api.cookies import SessionCookie

USER_PROBLEMS = (
    *("invalid-credentials-form", "two-credentials", "credential-in-url"),
    *("unauthenticated", "invalid-credential", "insufficient-scope", "cross-site-request"),
    *("malformed-json", "body-too-large", "unsupported-media-type", "invalid-request", "too-many-guesses"),
    *("request-timeout", "busy", "store-unavailable", "keys-unavailable"),
)
"""What every call with a credential may answer, also to a body that nobody asked for."""

SESSION: dict[str, Any] = {"security": [{"sessionCookie": []}, {"bearer": []}]}
BEARER: dict[str, Any] = {"security": [{"bearer": []}]}


def describe_credentials(app: FastAPI, cookie: SessionCookie) -> None:
    """Add the security schemes to the document."""
    describe = app.openapi
    schemes = {
        "sessionCookie": {"type": "apiKey", "in": "cookie", "name": cookie.name},
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "A session token (43 characters), an API key (`slk_…`), or a JWT of the trusted issuer.",
        },
    }

    def openapi() -> dict[str, Any]:
        document = describe()
        document.setdefault("components", {})["securitySchemes"] = schemes
        return document

    app.openapi = openapi  # type: ignore[method-assign]
