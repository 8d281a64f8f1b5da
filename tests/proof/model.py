"""What anybody must see of the ledger, in one page of plain Python.

Its own words for D3: whatever comes first ends a session, a command or time, and that end stands for ever. So ends are
marked when they happen; nothing is judged later.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from tests.api.client import SignedIn

CAP = 3
TOUCH_S = 60
IDLE_S = {False: 600, True: 2 * 86400}
ABSOLUTE_S = {False: 900, True: 5 * 86400}
KEPT_S = 86400


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


class End(NamedTuple):
    """`by` is who ended it, where the reason alone does not say so."""

    at: datetime
    reason: str
    by: str | None = None


@dataclass(eq=False)
class Session:
    """`told` is what the sign-in service heard of it."""

    user: str
    remember: bool
    created: datetime
    used: datetime
    end: End | None = None
    told: SignedIn | None = None

    @property
    def deadline(self) -> End:
        absolute = End(self.created + seconds(ABSOLUTE_S[self.remember]), "absolute_timeout")
        return min(absolute, End(self.used + seconds(IDLE_S[self.remember]), "inactivity_timeout"))


@dataclass
class Model:
    """`sessions` in the order in which they began; `kept` are the idempotency keys, with what was asked and begun."""

    now: datetime
    sessions: list[Session] = field(default_factory=list)
    disabled: set[str] = field(default_factory=set)
    kept: dict[str, tuple[tuple[object, ...], Session]] = field(default_factory=dict)

    def of(self, user: str) -> list[Session]:
        return [session for session in self.sessions if session.user == user]

    def live(self, user: str | None = None) -> list[Session]:
        return [session for session in self.sessions if not session.end and user in (None, session.user)]

    def wait_until(self, moment: datetime) -> None:
        self.now = moment
        for session in self.live():
            if session.deadline.at <= moment:
                session.end = session.deadline

    def use(self, session: Session) -> bool:
        """Whether it is let in. A use soon after the last one does not count as one."""
        if not session.end and self.now - session.used >= seconds(TOUCH_S):
            session.used = self.now
        return not session.end

    def end(self, sessions: list[Session], reason: str, by: str | None = None) -> int:
        ending = [session for session in sessions if not session.end]
        for session in ending:
            session.end = End(self.now, reason, by)
        return len(ending)

    def disable(self, user: str) -> None:
        self.disabled.add(user)
        self.end(self.of(user), "user_disabled")

    def sign_in(
        self, user: str, remember: bool, replaced: Session | None, key: str | None
    ) -> tuple[int, Session | None]:
        """The status to expect, and the session that was begun, now or when the key came first."""
        asked = (user, remember, replaced)
        if replaced and replaced.user != user:
            return 422, None
        if key in self.kept and self.now - self.kept[key][1].created < seconds(KEPT_S):
            first_asked, session = self.kept[key]
            if first_asked != asked:
                return 422, None
            return (409, None) if session.end else (201, session)
        if user in self.disabled:
            return 403, None
        self._make_room(user, replaced)
        self.sessions.append(Session(user, remember, self.now, self.now))
        if key:
            self.kept[key] = asked, self.sessions[-1]
        return 201, self.sessions[-1]

    def _make_room(self, user: str, replaced: Session | None) -> None:
        if replaced:
            self.end([replaced], "replaced")
        while len(live := self.live(user)) >= CAP:
            self.end([min(live, key=lambda session: session.used)], "session_limit")
