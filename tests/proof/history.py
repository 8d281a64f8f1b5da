"""What concurrent clients saw, and whether one truth explains it (VER-04). One monotonic clock judges them all."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple


class Credential(NamedTuple):
    """One way into a session, presented to one process."""

    session: str
    way: str
    process: str


class Check(NamedTuple):
    """One request: from just before it was sent until its answer was there whole."""

    credential: Credential
    started: float
    ended: float
    accepted: bool


@dataclass
class History:
    """The checks in any order, and for each session when its end was asked for and when its 2xx was there whole.

    Threads may add to it.
    """

    checks: list[Check] = field(default_factory=list)
    asked: dict[str, float] = field(default_factory=dict)
    acknowledged: dict[str, float] = field(default_factory=dict)

    def check(self, credential: Credential, is_accepted: Callable[[], bool]) -> None:
        started = time.monotonic()
        accepted = is_accepted()
        self.checks.append(Check(credential, started, time.monotonic(), accepted))

    def asks_to_end(self, sessions: Iterable[str]) -> None:
        self.asked |= dict.fromkeys(sessions, time.monotonic())

    def ended(self, sessions: Iterable[str], at: float) -> None:
        self.acknowledged |= dict.fromkeys(sessions, at)

    def contradictions(self) -> list[str]:
        """Each check that no order of the requests explains."""
        known_to_have_ended = self._known_to_have_ended()
        return [
            *(f"let in after its end was known: {c}" for c in self._accepted_after(known_to_have_ended)),
            *(f"refused before anybody had asked for it: {c}" for c in self._refused_before_asked()),
        ]

    def after_the_end(self) -> list[Check]:
        """The checks that were bound to be refused."""
        return [c for c in self.checks if c.started > self.acknowledged.get(c.credential.session, c.started)]

    def never_let_in(self) -> set[Credential]:
        """A credential of these says nothing by being refused."""
        return {c.credential for c in self.checks} - {c.credential for c in self.checks if c.accepted}

    def _known_to_have_ended(self) -> dict[str, float]:
        """By the acknowledgement, or by an earlier refusal: the first tells everybody."""
        known = dict(self.acknowledged)
        for check in self.checks:
            if not check.accepted:
                session = check.credential.session
                known[session] = min(check.ended, known.get(session, check.ended))
        return known

    def _accepted_after(self, ends: dict[str, float]) -> Iterator[Check]:
        return (c for c in self.checks if c.accepted and c.started > ends.get(c.credential.session, c.started))

    def _refused_before_asked(self) -> Iterator[Check]:
        return (
            c for c in self.checks if not c.accepted and c.ended < self.asked.get(c.credential.session, c.ended + 1)
        )
