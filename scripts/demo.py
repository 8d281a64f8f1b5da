"""`./scripts/serve --demo`: three people with several sessions each, and `curl` lines to try."""

from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple
from uuid import uuid4

from api.credentials import new_token
from api.devices import device_label
from api.ids import new_uuid7
from api.opening import open_service
from api.service import Service
from api.settings import Settings
from domain.errors import UserErased
from domain.events import ClientDetails
from domain.ledger import Request
from domain.user import SignIn
from projections.api_keys import OPERATOR, list_keys
from store.api_keys import Scope, create_key, digest, revoke_key

KEY_NAME = "demo"
MAC = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) "
    "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
)
WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.6 Mobile/15E148 Safari/604.1"
)
ANDROID = (
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36"
)


class Person(NamedTuple):
    """Someone, and where he is signed in: address, user agent, remembered."""

    user_id: str
    places: tuple[tuple[str, str, bool], ...]


PEOPLE = (
    Person(
        "alice@example.com",
        (("203.0.113.7", MAC, True), ("203.0.113.7", IPHONE, True), ("198.51.100.23", WINDOWS, False)),
    ),
    Person("bob@example.com", (("192.0.2.44", WINDOWS, False), ("192.0.2.101", ANDROID, True))),
    Person("carol@example.com", (("2001:db8::51", MAC, False), ("198.51.100.9", ANDROID, True))),
)


def prepare(settings: Settings, url: str) -> None:
    """Enrol the people, make an API key in the place of the last demo's, and print what to try."""
    service = open_service(settings)
    try:
        key_id, secret = _fresh_key(service)
        tokens = dict(_sign_all_in(service, f"key:{key_id}"))
    finally:
        service.close()
    print(_to_try(url, tokens, secret), flush=True)


def _fresh_key(service: Service) -> tuple[str, str]:
    for key in list_keys(service.database):
        if key.name == KEY_NAME and key.revoked_at is None:
            revoke_key(service.ledger, key.key_id, Request(OPERATOR, new_uuid7()))
    key, secret = create_key(service.ledger, KEY_NAME, list(Scope), Request(OPERATOR, new_uuid7()))
    return key.key_id, secret


def _sign_all_in(service: Service, actor: str) -> Iterator[tuple[str, list[str]]]:
    """Each person with his tokens; who was erased while somebody tried things out stays away for ever."""
    for person in PEOPLE:
        with suppress(UserErased):
            yield person.user_id, list(_sign_in(service, person, actor))


def _sign_in(service: Service, person: Person, actor: str) -> Iterator[str]:
    """The tokens of new sessions; who was disabled while somebody tried things out is let in again."""
    service.ledger.enable_user(person.user_id, Request(actor, new_uuid7())).result()
    for address, user_agent, remember_me in person.places:
        token = new_token()
        sign_in = SignIn(
            session_id=uuid4(),
            token_hash=digest(token),
            device=device_label(user_agent),
            client=ClientDetails(address, user_agent),
            remember_me=remember_me,
            idp_name="demo",
            amr=("pwd",),
        )
        service.ledger.create_session(person.user_id, sign_in, Request(actor, new_uuid7())).result()
        yield token


def _to_try(url: str, tokens: dict[str, list[str]], key: str) -> str:
    if not tokens:
        return "\nAll of the demo's people were erased. Start with a new ledger, in another folder or without var/."
    user, *others = tokens
    name, other = user.partition("@")[0].upper(), others[0] if others else user
    return f"""
Signed in: {", ".join(f"{user_id} ({len(t)} sessions)" for user_id, t in tokens.items())}.

# {user}, a user:
export {name}='Authorization: Bearer {tokens[user][0]}'
curl -s {url}/api/auth/session -H "${name}"
curl -s {url}/api/sessions -H "${name}"
curl -s -X POST {url}/api/sessions/revoke-all -H "${name}" -H 'Content-Type: application/json' \\
     -d '{{"except_current":true}}'
curl -s -X POST {url}/api/auth/signout -H "${name}" -i

# A sign-in service, which begins sessions:
export KEY='Authorization: Bearer {key}'
curl -s {url}/api/sessions -H "$KEY" -H 'Content-Type: application/json' \\
     -d '{{"user_id":"dave@example.com","ip_address":"203.0.113.80","user_agent":"curl/8.0"}}'

# An administrator, who looks at somebody, disables him and lets him in again:
curl -s {url}/api/users/{other}/sessions -H "$KEY"
curl -s -X POST {url}/api/users/{other}/disable -H "$KEY"
curl -s -X POST {url}/api/users/{other}/enable -H "$KEY"

# An auditor, who asks what happened to him and listens to what happens now; the same from a shell:
curl -s "{url}/api/users/{other}/audit?limit=5" -H "$KEY"
curl -sN {url}/api/audit/stream -H "$KEY"
./scripts/ledger replay --user {other}
"""
