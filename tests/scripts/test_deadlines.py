"""A request arrives in time or its connection ends; whoever waits for us is not blamed (T-15)."""

import json
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.scripts.slow_clients import Client, HastyServer, closing, head, sign_in_head
from tests.scripts.test_server import until

BODY = b'{"user_id":"alice"}'
CHECK = head("GET", "/healthz")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(directory: Path) -> Iterator[HastyServer]:
    server = HastyServer(directory)
    yield server.await_start()  # type: ignore[misc]
    server.close()


def await_deadline(server: HastyServer) -> None:
    """Long enough that whatever began before is late."""
    silent = Client(server.port)
    assert silent.await_close() == b""
    silent.close()


def problem(answer: bytes) -> tuple[int, str]:
    """Status and kind of an answer that is the last one on its connection."""
    start, _, rest = answer.partition(b"\r\n")
    lines, _, body = rest.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in lines.decode().lower().split("\r\n"))
    assert headers["content-type"] == "application/problem+json"
    assert headers["content-length"] == str(len(body))
    assert (headers["connection"], headers["cache-control"]) == ("close", "no-store")
    told = json.loads(body)
    assert start.split()[1] == str(told["status"]).encode()
    return told["status"], told["type"].rpartition("/")[2]


LATE = {
    "one byte": (b"G", b""),
    "half a head": (CHECK[:-20], b""),
    "a head that never ends": (CHECK[:-2], b"X: y\r\n"),
    "no body": (sign_in_head("Content-Length: 19"), b""),
    "half a body": (sign_in_head("Content-Length: 19") + BODY[:5], b""),
    "a body by bytes": (sign_in_head("Content-Length: 16000") + b'{"', b"x"),
    "a body by chunks": (sign_in_head("Transfer-Encoding: chunked"), b"1\r\n \r\n"),
    "a chunk that never ends": (sign_in_head("Transfer-Encoding: chunked") + b"fff\r\n", b" "),
    "a body that waits to be asked for": (sign_in_head("Content-Length: 19", "Expect: 100-continue"), b""),
    "the second request": (CHECK + CHECK[:-4], b""),
}


def test_a_request_that_does_not_arrive_in_time_is_answered_408(server: HastyServer):
    with closing(Client(server.port, begin) for begin, _ in LATE.values()) as clients:

        def dribble() -> bool:
            for client, (_, more) in zip(clients, LATE.values(), strict=True):
                if more and not client.look().is_closed:
                    client.send(more)
            return all(client.look().is_closed for client in clients)

        until(dribble)
        answers = dict(zip(LATE, [client.received for client in clients], strict=True))
    for name, answer in answers.items():
        last = answer[answer.rindex(b"HTTP/1.1 ") :]
        assert (name, *problem(last)) == (name, 408, "request-timeout")
    first, _, _ = answers["the second request"].partition(b"\r\n")
    assert first == b"HTTP/1.1 200 OK"
    counts = [json.loads(line) for line in server.log_text.splitlines()]
    assert sum(line["refused"] for line in counts if line["logger"] == "ledger.deadlines") == len(LATE)
    assert "Traceback" not in server.log_text


def test_a_head_without_end_is_refused_before_it_fills_memory(server: HastyServer):
    for field in (b"x" * 2**16, b"X: y\r\n" * 2**13):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client, suppress(ConnectionError):
            client.sendall(CHECK[:-2] + b"X: ")
            sent = [client.send(field) for _ in range(64)]
            assert problem(client.recv(65_536)) == (400, "bad-request"), sum(sent)  # or reset, before it was read


NO_REQUEST = {
    "nothing at all": (b"", b"", b""),
    "line ends and no request": (b"\r\n", b"\r\n", b""),
    "line ends after a request": (CHECK, b"\r\n", b"HTTP/1.1 200 OK"),
    "a body that was refused already": (sign_in_head("Content-Length: 20000"), b"x", b"HTTP/1.1 413 "),
}


def test_what_is_no_request_or_has_its_answer_is_only_closed(server: HastyServer):
    with closing(Client(server.port, begin) for begin, _, _ in NO_REQUEST.values()) as clients:

        def dribble() -> bool:
            for client, (begin, more, _) in zip(clients, NO_REQUEST.values(), strict=True):
                if more and not client.look().is_closed and (client.received or not begin.strip()):
                    client.send(more)
            return all(client.look().is_closed for client in clients)

        until(dribble)
        for client, (name, (_, _, answer)) in zip(clients, NO_REQUEST.items(), strict=True):
            assert (name, client.received.count(b"HTTP/1.1 ")) == (name, 1 if answer else 0)
            assert client.received.startswith(answer)


def test_each_request_on_a_connection_has_its_own_time(server: HastyServer):
    with closing([Client(server.port)]) as [client]:
        silent = Client(server.port)
        count = 0
        while not silent.look().is_closed:  # until more time has gone by than one request has
            count += 1
            body = b"13\r\n" + BODY + b"\r\n0\r\n\r\n"
            for part in (sign_in_head("Transfer-Encoding: chunked"), body[:9], body[9:]):
                client.send(part)
                time.sleep(0.1)  # the client's pace
            until(lambda: client.look().received.count(b"HTTP/1.1 201 ") == count)  # noqa: B023
        assert count > 2
        assert not client.is_closed


def test_who_waits_for_the_store_is_not_late_and_answers_keep_their_order(server: HastyServer, directory: Path):
    whole = sign_in_head(f"Content-Length: {len(BODY)}") + BODY
    store = sqlite3.connect(directory / "var" / "ledger.db", isolation_level=None)
    store.execute("BEGIN IMMEDIATE")
    clients = [
        Client(server.port, whole),
        Client(server.port, whole + whole[:-1]),
        Client(server.port, whole + CHECK[:-1]),
    ]
    with closing(clients) as [single, half_a_body, half_a_head]:
        await_deadline(server)
        assert [client.look().received for client in clients] == [b"", b"", b""]
        store.execute("ROLLBACK")
        store.close()
        answered, refused = half_a_head.await_close().split(b"HTTP/1.1 ")[1:]
        assert answered.startswith(b"201 ")
        assert problem(b"HTTP/1.1 " + refused) == (408, "request-timeout")
        half_a_body.send(whole[-1:])
        until(lambda: half_a_body.look().received.count(b"HTTP/1.1 201 ") == 2)
        until(lambda: single.look().received.startswith(b"HTTP/1.1 201 "))


def test_an_answer_may_be_read_as_slowly_as_one_likes(server: HastyServer):
    asked = 60  # more than buffers hold
    with closing([Client(server.port, head("GET", "/openapi.json") * asked, receive_buffer=65_536)]) as [client]:
        await_deadline(server)
        until(lambda: client.look().received.count(b"HTTP/1.1 200 OK") == asked)


def test_what_is_not_http_is_answered_with_a_problem_too(server: HastyServer):
    for raw in (b"\x16\x03\x01\x00\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", CHECK + b"GET /\x1b HTTP/1.1\r\n\r\n"):
        with closing([Client(server.port, raw)]) as [client]:
            answer = client.await_close()
            assert problem(answer[answer.rindex(b"HTTP/1.1 ") :]) == (400, "bad-request")
