"""People who are signed in, with devices as people have them, before the load begins."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from uuid import UUID

from api.credentials import new_token
from api.ids import new_uuid7, uuid4
from api.opening import open_service
from api.service import Service
from api.settings import load_settings
from domain.events import ClientDetails
from domain.ledger import Request
from domain.user import SignIn
from projections.api_keys import OPERATOR
from scripts.benchmarks.databases import Place
from scripts.demo import MAC
from store.api_keys import Scope, create_key, digest

IN_FLIGHT = 256


@dataclass(frozen=True)
class SignedIn:
    """A session that was made, and the secret that opens it."""

    user_id: str
    session_id: UUID
    token: str


@contextmanager
def opened(place: Place, **settings: str) -> Iterator[Service]:
    """The service without HTTP, as in the server's own process."""
    service = open_service(load_settings({**place.settings, **settings}))
    service.start()
    try:
        yield service
    finally:
        service.close()


def sign_in(token: str) -> SignIn:
    """A remembered session, with the details that are sealed."""
    client = ClientDetails("203.0.113.7", MAC)
    return SignIn(uuid4(), digest(token), "Chrome on macOS", client, remember_me=True, idp_name="bench", amr=("pwd",))


def seed(service: Service, users: int, sessions_each: int) -> list[SignedIn]:
    """Sign everybody in, user after user in each round, so that neighbours in the list are different people."""
    made = []
    wanted = (f"user-{number}@example.com" for _ in range(sessions_each) for number in range(users))
    while page := list(islice(wanted, IN_FLIGHT)):
        tokens = [new_token() for _ in page]
        futures = [
            service.ledger.create_session(user_id, sign_in(token), Request("key:bench", new_uuid7()))
            for user_id, token in zip(page, tokens, strict=True)
        ]
        for user_id, token, future in zip(page, tokens, futures, strict=True):
            made.append(SignedIn(user_id, future.result().result.session_id, token))
    return made


def api_key(service: Service) -> str:
    return create_key(service.ledger, f"bench {os.getpid()}", list(Scope), Request(OPERATOR, new_uuid7()))[1]
