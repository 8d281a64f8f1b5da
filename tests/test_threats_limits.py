"""Threats that a limit answers (standards, section 3): guessing, slow clients, floods."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from api.service import Service
from tests.api import conftest as applications
from tests.api.client import bearer, told
from tests.api.conftest import OpenApi
from tests.clock import ManualClock
from tests.projections import conftest as driving
from tests.projections.driver import Driver, request
from tests.scripts.slow_clients import Client, HastyServer, closing, sign_in_head
from tests.scripts.test_server import until

open_api = applications.open_api
drive, driver = driving.drive, driving.driver


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


HOUR_S, TOUCH_INTERVAL_S = 3600, 60
MOST_BYTES_OF_A_TOUCH = 400


def touches(service: Service) -> list[int]:
    """The size of each that was recorded, once all that was asked for so far is."""
    service.ledger.enrol_user(str(uuid4()), request()).result(20)
    log = service.recorder.select_notifications(1, 100_000)
    return [len(event.state) for event in log if event.topic == "SessionTouched"]


def test_t_16_a_session_used_every_second_is_recorded_once_a_minute(driver: Driver, clock: ManualClock):
    session = driver.sign_in()
    for _ in range(HOUR_S):
        clock.advance(1)
        driver.touch(session)
    recorded = touches(driver.service)
    assert len(recorded) == HOUR_S / TOUCH_INTERVAL_S
    assert sum(recorded) <= len(recorded) * MOST_BYTES_OF_A_TOUCH
    assert driver.is_accepted(session)


def touch_at_once(driver: Driver, sessions: list[UUID]) -> None:
    """Touches each of these without waiting for the one before."""
    stream, ledger = driver.stream(), driver.ledger
    touching = [ledger.touch_session(stream, session, request()) for session in sessions]
    assert all(future.result(60).result for future in touching)


def test_t_16_ten_thousand_uses_at_once_are_one_event(driver: Driver, clock: ManualClock):
    session = driver.sign_in()
    clock.advance(TOUCH_INTERVAL_S)
    for _ in range(20):
        touch_at_once(driver, [session] * 500)
    clock.advance(TOUCH_INTERVAL_S - 0.001)
    touch_at_once(driver, [session] * 500)
    assert len(touches(driver.service)) == 1
    clock.advance(0.001)
    touch_at_once(driver, [session] * 500)
    assert len(touches(driver.service)) == 2


def test_t_16_fifty_sessions_of_one_user_are_bounded_one_by_one(driver: Driver, clock: ManualClock):
    sessions = [driver.sign_in() for _ in range(50)]
    for minute in range(1, 4):
        clock.advance(TOUCH_INTERVAL_S)
        touch_at_once(driver, sessions * 5)
        assert len(touches(driver.service)) == 50 * minute
    assert set(driver.active()) == set(sessions)


CALLS = [
    ("GET", "/api/auth/session"),
    ("GET", "/api/sessions"),
    ("GET", "/api/sessions?status=all"),
    ("DELETE", "/api/sessions"),
    ("DELETE", "/api/sessions/x"),
    ("POST", "/api/users/x/disable"),
    ("PUT", "/api/sessions"),
]


def test_t_16_whatever_a_client_asks_for_the_log_grows_by_one_touch_a_minute(open_api: OpenApi):
    api = open_api()
    alice = api.sign_in()
    before = len(api.log())
    for second in range(0, HOUR_S, 20):
        api.clock.advance(20)
        ways = [*alice.ways_in.values()] if second < 600 else [alice.bearer, alice.by_cookie]
        answers = api.at_once((method, path, headers) for headers in ways for method, path in CALLS)
        assert answers[0].status_code == 200
    recorded = touches(api.service)
    assert HOUR_S / TOUCH_INTERVAL_S / 2 < len(recorded) <= HOUR_S / TOUCH_INTERVAL_S + 1
    assert sum(recorded) <= len(recorded) * MOST_BYTES_OF_A_TOUCH
    assert len(api.log()) == before + len(recorded) + 1  # and whom `touches` enrolled
