"""Threats that a limit answers (standards, section 3): guessing, slow clients, floods."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.api import conftest as applications
from tests.api.client import bearer, told
from tests.api.conftest import OpenApi
from tests.scripts.slow_clients import Client, HastyServer, closing, sign_in_head
from tests.scripts.test_server import until

open_api = applications.open_api


def test_t_05_a_thousand_guessed_ids_are_a_hundred_404s_and_then_429(open_api: OpenApi):
    api = open_api(guess_limit=100)
    guesser, victim = api.sign_in("guesser"), api.sign_in("victim")
    guesses = [("DELETE", f"/api/sessions/{uuid4()}", guesser.bearer) for _ in range(999)]
    answers = Counter(told(answer) for answer in api.at_once(guesses))
    assert answers == {(404, "session-not-found"): 100, (429, "too-many-guesses"): 899}
    assert told(api.delete(f"/api/sessions/{victim.id}", guesser.bearer)) == (429, "too-many-guesses")
    assert api.is_active(victim.bearer)
    assert told(api.delete(f"/api/sessions/{uuid4()}", victim.bearer)) == (404, "session-not-found")


def test_t_05_a_thousand_guessed_tokens_are_a_hundred_401s_and_then_429(open_api: OpenApi):
    api = open_api(guess_limit=100)
    victim = api.sign_in("victim")
    guesses = [("GET", "/api/auth/session", bearer(f"{number:043}")) for number in range(1000)]
    answers = Counter(told(answer) for answer in api.at_once(guesses))
    assert answers == {(401, "invalid-credential"): 100, (429, "too-many-guesses"): 900}
    assert api.is_active(victim.bearer)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HastyServer]:
    server = HastyServer(tmp_path)
    server.await_start()
    yield server
    server.close()


HEADS = [(b"GET /api/auth/session HTTP/1.1\r\n", b"X")] * 200
BODIES = [
    *[(sign_in_head("Content-Length: 16000"), b" ")] * 20,
    *[(sign_in_head("Transfer-Encoding: chunked"), b"1\r\n \r\n")] * 20,
]


def test_t_15_slow_clients_are_refused_and_nobody_else_notices(server: HastyServer):
    token = server.sign_in()
    slow = [*HEADS, *BODIES]
    with closing(Client(server.port, begin) for begin, _ in slow) as clients:

        def everybody_is_refused() -> bool:
            assert server.http.get("/healthz").status_code == 200
            assert server.is_active(token)
            server.sign_in(user_id="bob")
            for client, (_, more) in zip(clients, slow, strict=True):
                if not client.look().is_closed:
                    client.send(more)
            return all(client.look().is_closed for client in clients)

        assert not everybody_is_refused()
        until(everybody_is_refused)
        assert {client.received[:12] for client in clients} == {b"HTTP/1.1 408"}
    assert server.http.get("/healthz").status_code == 200
