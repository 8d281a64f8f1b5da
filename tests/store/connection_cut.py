"""A way to PostgreSQL that breaks in COMMIT, like a network does: a proxy on a Unix socket."""

import contextlib
import socket
import threading
from pathlib import Path
from typing import Literal

from sqlalchemy import make_url

Cut = Literal["before", "after"]
COMMIT = b"COMMIT\x00"


class BreakingProxy:
    """Passes everything on until it is told to `cut` the next COMMIT: before the server has it, or after it is done."""

    def __init__(self, url: str, directory: Path) -> None:
        url_ = make_url(url)
        self._server = Path(str(url_.query["host"])) / ".s.PGSQL.5432"
        self.url = url_.update_query_dict({"host": str(directory)}).render_as_string(hide_password=False)
        self.cuts = 0
        self._cut: Cut | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / ".s.PGSQL.5432"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, when: Cut) -> None:
        self._cut = when

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self._server))
                threading.Thread(target=self._forth, args=(client, server), daemon=True).start()
                threading.Thread(target=self._back, args=(server, client), daemon=True).start()

    def _forth(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if COMMIT in data and self._cut:
                    self._break(client, server, data)
                    return
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _break(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        when, self._cut = self._cut, None
        self.cuts += 1
        client.shutdown(socket.SHUT_RDWR)
        if when == "after":
            server.sendall(data)
        server.shutdown(socket.SHUT_WR)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)
