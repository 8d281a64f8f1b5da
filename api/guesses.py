"""Wrong guesses, counted by who makes them and refused from a limit on (T-05, API-10).

Two things can be guessed: the public id of a session, by a caller whom we know, and a credential, by anybody.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address

from api.edge import network_of
from api.errors import Problem
from domain.errors import SessionNotFound

WINDOW_S = 60
MAX_REMEMBERED = 10_000

_log = logging.getLogger("ledger.guesses")


class UnknownCredential(Problem):
    """A credential that was never ours: a guess, unlike one that has ended."""

    def __init__(self, detail: str) -> None:
        super().__init__("invalid-credential", detail)


class Guesses:
    """What one process has seen of guesses. `limit` of them are answered in a minute, and 429 then; 0 is no limit.

    A caller over the limit is refused before his id is looked up. A credential is always looked up: that tells nothing
    about 256 random bits, and whoever holds a valid or an ended one is not touched by what his neighbours send.
    """

    def __init__(self, limit: int, micros: Callable[[], int], *, log_network: bool = True) -> None:
        self._ids = _Tally("session ids", limit, micros)
        self._credentials = _Tally("credentials", limit, micros)
        self._log_network = log_network

    @contextmanager
    def looking_up(self, caller: str) -> Iterator[None]:
        """Around the look-up of an id that this caller sent. Raises `too-many-guesses` before it, or in its place."""
        self._ids.refuse(caller)
        try:
            yield
        except SessionNotFound:
            self._ids.add(caller, named=caller)
            raise

    def count_credential(self, client: tuple[str, int] | None) -> None:
        """A credential from there is unknown. Raises `too-many-guesses` when it is one too many."""
        address = client[0] if client else ""
        self._credentials.add(_origin(address), named=network_of(address) if self._log_network else None)


def _origin(address: str) -> str:
    """Who counts as one: an IPv4 address, or 64 bits of an IPv6 address, since the others are his own to choose.

    What is no address at all, as of a socket in the file system, counts as one too.
    """
    try:
        found = ip_address(address)
    except ValueError:
        return ""
    if isinstance(found, IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or f"{int(found) >> 64:x}::")


@dataclass(slots=True)
class _Window:
    """A minute that began with a guess, in microseconds, and how many there were since."""

    ends_at: int
    count: int = 0


class _Tally:
    """Guesses of one sort, by who made them; whoever has not guessed for longest is forgotten first."""

    def __init__(self, what: str, limit: int, micros: Callable[[], int]) -> None:
        self._what, self._limit, self._micros = what, limit, micros
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def refuse(self, guesser: str) -> None:
        """Raises `too-many-guesses` if he is over the limit."""
        window = self._windows.get(guesser)
        if window and window.count >= self._limit and (left := window.ends_at - self._micros()) > 0:
            raise _too_many(self._what, self._limit, -(-left // 1_000_000))

    def add(self, guesser: str, named: str | None) -> None:
        """One guess more. Raises `too-many-guesses` if it is over the limit; what reaches it is told in the log."""
        if not self._limit:
            return
        self.refuse(guesser)
        window = self._window(guesser)
        window.count += 1
        if window.count == self._limit:
            fields = {"of": self._what, "by": named, "limit": self._limit, "seconds": WINDOW_S}
            _log.warning("too many guesses", extra={"fields": fields})

    def _window(self, guesser: str) -> _Window:
        now = self._micros()
        window = self._windows.pop(guesser, None)
        if window is None or window.ends_at <= now:
            window = _Window(now + WINDOW_S * 1_000_000)
        self._windows[guesser] = window
        if len(self._windows) > MAX_REMEMBERED:
            self._windows.popitem(last=False)
        return window


def _too_many(what: str, limit: int, seconds: int) -> Problem:
    headers = {
        "Retry-After": str(seconds),
        "RateLimit-Policy": f'"guesses";q={limit};w={WINDOW_S}',
        "RateLimit": f'"guesses";r=0;t={seconds}',
    }
    detail = f"Too many {what} that are not ours; try again in {seconds} s."
    return Problem("too-many-guesses", detail, headers=headers, **{"violated-policies": ["guesses"]})
