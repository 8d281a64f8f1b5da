"""Deadlines for what clients send, which uvicorn does not have (T-15). Whatever it refuses itself is a problem too."""

import asyncio
import logging
import socket

import uvicorn
from uvicorn._types import HTTPScope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from api.edge import HEADERS
from api.errors import Problem, problem_response

DEADLINE_S = 10
FAREWELL_S = 5
MAX_HEAD = 64 * 1024
TICKS_A_SECOND = 10  # of uvicorn's main loop

_log = logging.getLogger("ledger.deadlines")


class PunctualProtocol(HttpToolsProtocol):
    """A connection whose requests arrive whole, head and body, within `DEADLINE_S` of their first byte, or it ends.

    A connection that sends nothing at first has as long; one that rests between two requests is uvicorn's business
    (`timeout_keep_alive`), and how slowly an answer is read is nobody's, until the connection is to end: then what is
    left must be taken within `FAREWELL_S`. Time is counted in sweeps, one a second: a request costs no timer and no
    look at a clock, and when the loop stands still, no client is blamed for it.
    """

    _sweeps: int | None = 0  # since the message that is arriving began; None while there is none
    _head = 0  # bytes of the head that is arriving, but for the first that came
    _farewell = 0  # sweeps since the connection was told to close

    def data_received(self, data: bytes) -> None:
        """Refuse a head that does not end: uvicorn would keep all of it, in time that grows with its square."""
        if self._sweeps is not None and self._has_begun() and not self._is_running():
            self._head += len(data)
            if self._head > MAX_HEAD:
                self.send_400_response(f"The head of a request may have {MAX_HEAD} bytes.")
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._sweeps = self._head = 0

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._sweeps = None

    def sweep(self) -> bool:
        """Called once a second. Whether this found a request late, and refused it."""
        if self.transport.is_closing():
            self._forget_unread()
        elif self._sweeps is None:
            self._sweeps = 0 if self._rests_without_timer() else None
        elif self.pipeline or self.flow.read_paused:
            self._sweeps = 0  # it is the client who waits
        elif self._sweeps < DEADLINE_S:
            self._sweeps += 1
        elif self._may_end():
            return self._end()
        return False

    def _forget_unread(self) -> None:
        """Or who never reads the end of an answer would keep it in memory, and its connection."""
        self._farewell += 1
        if self._farewell > FAREWELL_S:
            self.transport.abort()

    def _rests_without_timer(self) -> bool:
        """Bytes between two requests that begin none, such as line ends, stop uvicorn's timer for good."""
        return self._is_answered() and self.timeout_keep_alive_task is None

    def _may_end(self) -> bool:
        """Answers go in order, and none is cut off."""
        return self._is_answered() or (self._is_running() and not self.cycle.response_started)

    def _end(self) -> bool:
        is_late = self._has_begun() and not (self._is_running() and self._is_answered())
        if is_late:
            self._refuse(Problem("request-timeout", f"A request must arrive within {DEADLINE_S} s."))
        self.transport.close()
        return is_late

    def _has_begun(self) -> bool:
        """Whether any request ever came on this connection."""
        scope: HTTPScope | None = self.scope
        return scope is not None and not self.transport.is_closing()

    def _is_running(self) -> bool:
        """Whether the application was given the latest request, before all of it was here."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and cycle.scope is self.scope

    def _is_answered(self) -> bool:
        """Whether all requests that the application was given have their answers."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def send_400_response(self, msg: str) -> None:
        self._refuse(Problem("bad-request", msg))

    def _refuse(self, problem: Problem) -> None:
        """The last thing that is said on this connection."""
        answer = problem_response(problem, None)
        headers = [*self.server_state.default_headers, *answer.raw_headers, *HEADERS, (b"connection", b"close")]
        lines = [b"%b: %b\r\n" % header for header in headers]
        self.transport.write(b"".join([STATUS_LINE[problem.status], *lines, b"\r\n", bytes(answer.body)]))
        self.transport.close()
        if self._is_running():
            self.cycle.disconnected = True
            self.cycle.message_event.set()


class PunctualServer(uvicorn.Server):
    """Keeps the deadlines of its connections, and says in the log how many were not met."""

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS_A_SECOND == 0:
            self._sweep()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        sweeping = asyncio.create_task(self._sweep_on())
        await super().shutdown(sockets)
        sweeping.cancel()

    async def _sweep_on(self) -> None:
        """While connections are waited for, the main loop ticks no more."""
        while True:
            await asyncio.sleep(1)
            self._sweep()

    def _sweep(self) -> None:
        connections = [c for c in self.server_state.connections if isinstance(c, PunctualProtocol)]
        if late := sum(connection.sweep() for connection in connections):
            _log.warning("requests came too slowly", extra={"fields": {"refused": late}})
