"""`./scripts/serve`: check the settings, then serve until Ctrl-C."""

import argparse
import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

import uvicorn

from api.app import access_tokens, create_app
from api.logs import configure_logging
from api.opening import open_service
from api.settings import Settings, SettingsError, load_settings, unknown_settings
from domain.errors import StoreUnavailable
from scripts import demo
from scripts.deadlines import FAREWELL_S, PunctualProtocol, PunctualServer
from store.clock import Clock, ClockBehindLog
from store.master_key import MasterKeyError
from store.signing import SigningKeyError

GRACE_S = 10
BAD_SETTINGS, CANNOT_START = 2, 1


def main() -> None:
    wants_demo = _parser().parse_args().demo
    try:
        settings = _settings(os.environ)
    except SettingsError as error:
        _fail(BAD_SETTINGS, error)
    configure_logging()
    os.umask(0o077)  # the files hold user ids and wrapped keys
    config = _config(settings)
    listening = config.bind_socket()
    try:
        if wants_demo:
            demo.prepare(settings, _url(listening))
        else:
            open_service(settings).close()
    except (StoreUnavailable, MasterKeyError, SigningKeyError, ClockBehindLog, OSError) as error:
        _fail(CANNOT_START, error)
    collect_garbage_rarely()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises the signal again once all is closed
    with suppress(KeyboardInterrupt):
        LedgerServer(config).run(sockets=[listening])


class LedgerServer(PunctualServer):
    """Waits at the end for answers that end: not for streams, and for exports only so long as they can still be cut."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        application: Any = self.config.app
        application.state.audit_streams.close()
        asyncio.get_running_loop().call_later(GRACE_S - FAREWELL_S - 1, application.state.exports.close)
        await super().shutdown(sockets)


def collect_garbage_rarely() -> None:
    """Look for cycles every 50,000 allocations, and never in what was there before the first request.

    Requests make few cycles, and the users in memory are many objects: by default a fifth of the processor's time goes
    into looking through them in vain.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


def _settings(environ: Mapping[str, str]) -> Settings:
    """Checked as far as they can be before anything is touched. Raises `SettingsError`."""
    settings = load_settings(environ)
    for warning in unknown_settings(environ):
        print(warning, file=sys.stderr)
    try:
        access_tokens(settings, Clock().now)
    except ValueError as error:
        allowed = f"a file with usable keys, or an http(s):// URL ({error})"
        raise SettingsError(f"LEDGER_JWT_JWKS is {settings.jwt_jwks!r}; allowed: {allowed}") from error
    return settings


def _config(settings: Settings) -> uvicorn.Config:
    """On a signal, requests at hand are finished, for at most `GRACE_S` seconds (F-24).

    No `limit_concurrency`: it counts connections, so that a few hundred idle ones would have everybody else refused,
    `/healthz` included, and in plain text. Deadlines end idle and slow ones (T-15), a full queue answers 503, and how
    many connections one client may open is for the proxy to say, which knows the clients.

    No WebSockets: nothing here speaks them, and uvicorn's log paths and queries, and outlive deadlines and signals.
    """
    proxies = [str(network) for network in settings.trusted_proxies]
    return uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        http=PunctualProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies,
        timeout_graceful_shutdown=GRACE_S,
    )


def _url(listening: socket.socket) -> str:
    host, port, *_ = listening.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _fail(status: int, error: Exception) -> NoReturn:
    print(error, file=sys.stderr)
    sys.exit(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./scripts/serve", description="Serve the session ledger.")
    parser.add_argument("--demo", action="store_true", help="first enrol three users and print curl lines to try")
    return parser


if __name__ == "__main__":
    main()
