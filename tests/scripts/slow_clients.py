"""Clients that take their time, and a server that gives them little."""

import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tests.scripts.test_server import KEY, Server, until

DEADLINE_S = 2


class HastyServer(Server):
    """With a deadline that a test can wait for."""

    program = (
        "-c",
        f"import scripts.deadlines; scripts.deadlines.DEADLINE_S = {DEADLINE_S}\n"
        "from scripts.server import main; main()",
    )


class Client:
    """A connection that never waits."""

    def __init__(self, port: int, *sent: bytes, receive_buffer: int | None = None) -> None:
        self.received, self.is_closed = b"", False
        self._socket = socket.socket()
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.connect(("127.0.0.1", port))
        self._socket.setblocking(False)
        for data in sent:
            self.send(data)

    def send(self, data: bytes) -> None:
        try:
            assert self._socket.send(data) == len(data)
        except (BrokenPipeError, ConnectionResetError):
            self.is_closed = True

    def look(self) -> "Client":
        """Take what has come."""
        try:
            while data := self._socket.recv(65_536):
                self.received += data
            self.is_closed = True
        except BlockingIOError:
            pass
        except ConnectionResetError:
            self.is_closed = True
        return self

    def await_close(self) -> bytes:
        """All that was answered until the server closed the connection."""
        until(lambda: self.look().is_closed)
        return self.received

    def close(self) -> None:
        self._socket.close()


def head(method: str, path: str, *lines: str) -> bytes:
    """A request's head, authorized to do anything."""
    return "\r\n".join(
        [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {KEY}", *lines, "", ""]
    ).encode()


def sign_in_head(*lines: str) -> bytes:
    return head("POST", "/api/sessions", "Content-Type: application/json", *lines)


@contextmanager
def closing(clients: Iterable[Client]) -> Iterator[list[Client]]:
    opened = [*clients]
    yield opened
    for client in opened:
        client.close()
