"""The composition root: `create_app(settings)` builds everything, its lifespan starts and closes it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.types import Receive, Scope, Send

from api import (
    audit,
    audit_stream,
    auth,
    bulk_revocation,
    evidence,
    export,
    health,
    introspection,
    metrics,
    sessions,
    users,
)
from api.access_tokens import AccessTokens
from api.audit_presenting import AuditPresenter
from api.audit_streams import AuditStreams
from api.check import SessionCheck
from api.cookies import SessionCookie
from api.credentials import Credentials, Touches
from api.cursors import Cursors
from api.devices import device_label
from api.durations import RequestDurations
from api.edge import Edge
from api.errors import install
from api.guesses import Guesses
from api.long_answers import Places
from api.openapi import complete_document
from api.opening import open_service
from api.presenting import Presenter
from api.service import Service
from api.settings import Settings
from store.clock import Clock

DESCRIPTION = "Records the life of signed-in sessions as events, and says which sessions are active now."


def create_app(settings: Settings, clock: Clock | None = None) -> FastAPI:
    """An application that opens its databases when its lifespan begins, and not before. A test may bring a clock."""
    cookie = SessionCookie(settings.cookie_samesite, settings.cookie_insecure)
    durations = RequestDurations()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service = open_service(settings, clock)
        streams = app.state.audit_streams = AuditStreams(service.long_reads)
        try:
            await _attach(app, service, settings, cookie)
            app.state.metrics = metrics.registry_of(service, durations)
            service.start()
            yield
        finally:
            try:
                streams.close()
                await service.reads.close()
                await service.key_reads.close()
            finally:
                service.close()

    app = Application(
        title="Session ledger",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,  # `DELETE /api/sessions/` with an empty id must not become "end all the others"
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        telemetry=_NO_TELEMETRY,
        durations=durations,
        log_client=settings.store_client_details,
    )
    for module in (sessions, auth, bulk_revocation, users, export, audit_stream, audit, evidence, introspection, health,
                   metrics):  # fmt: skip
        app.router.routes.extend(module.router.routes)  # `include_router` would match each request twice
    install(app)
    complete_document(app, cookie)
    return app


# What FastAPI would record of a request that fails holds people's data.
_NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}


class Application(FastAPI):
    """FastAPI behind `Edge`, which holds for every request; the session check leaves it before FastAPI's own path."""

    def __init__(self, *, durations: RequestDurations, log_client: bool, **settings: Any) -> None:
        super().__init__(**settings)
        self._check = SessionCheck(self.state)
        self._edge = Edge(self._inside, durations, log_client=log_client)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._edge(scope, receive, send)

    async def _inside(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._check.takes(scope):
            await self._check(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


async def _attach(app: FastAPI, service: Service, settings: Settings, cookie: SessionCookie) -> None:
    """Hand the handlers what they work with."""
    await service.reads.open()
    await service.key_reads.open()
    await asyncio.to_thread(device_label, "warm-up")  # the first label builds the parser, in some 60 ms
    tokens = access_tokens(settings, service.clock.now)
    if tokens:
        await tokens.refresh_if_needed()
    bootstrap = settings.bootstrap_api_key and settings.bootstrap_api_key.get_secret_value()
    app.state.service = service
    app.state.cookie = cookie
    app.state.keep_client_details = settings.store_client_details
    app.state.credentials = Credentials(service.sessions, service.reads, tokens, bootstrap or None, cookie.name)
    app.state.guesses = Guesses(settings.guess_limit, service.clock.micros, log_network=settings.store_client_details)
    app.state.touches = Touches(service.ledger)
    app.state.exports = Places(export.MOST, export.MOST_EACH)
    app.state.presenter = Presenter(service.keys, service.key_reads)
    app.state.origin = settings.origin
    app.state.audit_presenter = AuditPresenter(service.keys, service.mapper)
    app.state.cursors = Cursors(service.keys.secret_for("cursors"))
    app.state.claim_key = service.keys.secret_for("idempotency")


def access_tokens(settings: Settings, clock: Callable[[], datetime]) -> AccessTokens | None:
    """Who verifies JWTs, if an issuer is trusted. Raises ValueError for a key file that cannot be used."""
    if not (settings.jwt_issuer and settings.jwt_audience and settings.jwt_jwks):
        return None
    return AccessTokens(settings.jwt_issuer, settings.jwt_audience, settings.jwt_jwks, clock)
