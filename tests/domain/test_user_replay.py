"""Whatever is asked of a user, in whatever order and at whatever times: the facts tell the whole of his state."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from domain.errors import LedgerError
from domain.events import (
    EndReason,
    Fact,
    SessionCreated,
    SessionRevoked,
    SessionTouched,
    UserDisabled,
    UserEnabled,
)
from domain.session import Limits, Timeouts
from domain.user import User, UserSnapshot
from tests.domain.story import (
    IDLE,
    LAPTOP,
    PHONE,
    TABLET,
    WATCH,
    context,
    created,
    disabled,
    emitted,
    enabled,
    ended,
    enrolled,
    erased,
    event_id,
    given,
    moment,
    sign_in,
    timed_out,
    touched,
    when,
)

Wish = Callable[[User], Any]


@dataclass(frozen=True)
class Command:
    """What is asked after so many `seconds`. `old` picks a session, counted from the newest; a sign-in has a `cap`."""

    name: str
    decide: Callable[[User, UUID, UUID], Any] = field(repr=False)
    seconds: int
    old: int
    cap: int | None = None


SECONDS = st.one_of(st.integers(-30, 120), st.sampled_from([24, 25, 99, 100, 299, 300, 301]))
OLD = st.integers(1, 6)
TIMEOUTS = st.sampled_from([Timeouts(100, 300), Timeouts(300, 300), Timeouts(50, 1000)])
TOUCH_INTERVAL = 25
TOUCHING = Limits(touch_interval=TOUCH_INTERVAL)


@st.composite
def sign_ins(draw: st.DrawFn) -> Command:
    limits = Limits(normal=draw(TIMEOUTS), max_sessions=draw(st.integers(1, 4)))
    replaces = draw(st.booleans())

    def decide(user: User, new: UUID, old: UUID) -> Any:
        return user.create_session(sign_in(new, replaces=old if replaces else None), limits)

    return Command("create", decide, draw(SECONDS), draw(OLD), limits.max_sessions)


def asked(name: str, decide: Callable[[User, UUID, UUID], Any]) -> st.SearchStrategy[Command]:
    return st.builds(Command, st.just(name), st.just(decide), SECONDS, OLD)


touches = asked("touch", lambda user, _, old: user.touch_session(old, TOUCHING))
COMMANDS = st.one_of(
    sign_ins(),
    sign_ins(),
    touches,
    touches,
    asked("revoke", lambda user, _, old: user.revoke_session(old, EndReason.REVOKED_BY_USER)),
    asked("revoke all", lambda user, _, __: user.revoke_all_sessions(EndReason.REVOKE_ALL)),
    asked("revoke others", lambda user, _, old: user.revoke_all_sessions(EndReason.REVOKE_ALL, keep=old)),
    asked("disable", lambda user, _, __: user.disable()),
    asked("enable", lambda user, _, __: user.enable()),
    asked("record the disable", lambda user, _, __: user.revoke_disabled_sessions()),
    asked("record part of it", lambda user, _, __: user.revoke_disabled_sessions(user.version // 2)),
    asked("erase", lambda user, _, __: user.erase()),
    asked("settle", lambda user, _, __: user.settle()),
)


class Life:
    """A user who is asked one thing after another. `told` holds the facts that he emitted, all of them."""

    def __init__(self) -> None:
        self.user = given([enrolled()])
        self.told: list[Fact] = []
        self.seconds = 0
        self.session_ids = [PHONE, LAPTOP, TABLET, WATCH]  # of which none began

    @property
    def now(self) -> datetime:
        """As the stream sees it: never before its last fact."""
        return max([moment(self.seconds), *(fact.timestamp for fact in self.told)])

    def ask(self, command: Command) -> tuple[Any, list[Fact]]:
        """His answer, or the class of the refusal; and the facts of this command."""
        self.seconds += command.seconds
        new, old = UUID(int=len(self.session_ids)), self.session_ids[-command.old % len(self.session_ids)]
        if command.cap:
            self.session_ids.append(new)
        self._wish: Wish = lambda user: command.decide(user, new, old)
        answer, facts = self.ask_again(self.user)
        self.told += facts
        return answer, facts

    def ask_again(self, user: User) -> tuple[Any, list[Fact]]:
        """The last command, put to another user at the same moment."""
        user.acting(context(self.seconds, user.version))
        try:
            answer = self._wish(user)
        except LedgerError as refusal:
            answer = type(refusal)
        return answer, emitted(user)


def lived(commands: Sequence[Command]) -> Life:
    life = Life()
    for command in commands:
        life.ask(command)
    return life


def whole(user: User) -> tuple[Any, ...]:
    """All of a user but the command that he acts on."""
    return user.id, user.version, user.created_on, user.modified_on, user.sessions, user.disabled, user.erasure


LIVES = st.lists(COMMANDS, max_size=30)
many = settings(max_examples=150, deadline=None)


@many
@for_all(LIVES)
def test_the_facts_replayed_give_the_same_state(commands: list[Command]):
    life = Life()
    for command in commands:
        life.ask(command)
        assert whole(given([enrolled(), *life.told])) == whole(life.user)


@many
@for_all(LIVES, LIVES)
def test_a_snapshot_gives_the_same_state_and_behaves_the_same_afterwards(before: list[Command], after: list[Command]):
    life = lived(before)
    snapshot = UserSnapshot.take(life.user)
    twin = User.from_state(snapshot.originator_id, snapshot.originator_version, as_json(snapshot.state))
    assert whole(snapshot.mutate(None)) == whole(twin) == whole(life.user)
    for command in after:
        assert life.ask(command) == life.ask_again(twin)
        assert whole(twin) == whole(life.user)


@many
@for_all(LIVES)
def test_a_refused_wish_leaves_no_trace(commands: list[Command]):
    life = Life()
    for command in commands:
        before = whole(given([enrolled(), *life.told]))
        answer, facts = life.ask(command)
        if isinstance(answer, type):
            assert (facts, whole(life.user)) == ([], before)


@many
@for_all(LIVES)
def test_a_session_ends_once_and_after_it_began(commands: list[Command]):
    begun: dict[UUID, datetime] = {}
    for fact in lived(commands).told:
        if isinstance(fact, SessionCreated):
            assert fact.session_id not in begun
            begun[fact.session_id] = fact.timestamp
        elif isinstance(fact, SessionRevoked):
            assert begun.pop(fact.session_id) <= fact.ended_at <= fact.timestamp


@many
@for_all(LIVES)
def test_live_sessions_never_exceed_the_cap(commands: list[Command]):
    life = Life()
    for command in commands:
        answer, _ = life.ask(command)
        if command.cap and not isinstance(answer, type):
            assert len(life.user.sessions) <= command.cap


@many
@for_all(LIVES)
def test_facts_are_numbered_and_timed_in_order(commands: list[Command]):
    told = lived(commands).told
    assert [(fact.originator_version, fact.event_id) for fact in told] == [
        (version, event_id(version)) for version in range(2, len(told) + 2)
    ]
    assert [fact.timestamp for fact in told] == sorted(fact.timestamp for fact in told)


@many
@for_all(LIVES)
def test_a_use_is_taken_exactly_when_the_facts_say_that_the_session_is_active(commands: list[Command]):
    life = Life()
    for command in commands:
        life.ask(command)
        for session_id in life.session_ids:
            told = list(life.told)
            taken, facts = when(
                [enrolled(), *told], lambda u, s=session_id: u.touch_session(s, TOUCHING), at=life.seconds
            )
            assert taken == is_active(told, session_id, life.now)
            assert not any(isinstance(fact, SessionTouched) for fact in facts) or taken


def is_active(facts: Sequence[Fact], session_id: UUID, now: datetime) -> bool:
    """The definition of an active session (D3), word by word from the facts."""
    began = [fact for fact in facts if isinstance(fact, SessionCreated) and fact.session_id == session_id]
    if not began or any(isinstance(fact, SessionRevoked) and fact.session_id == session_id for fact in facts):
        return False
    access = [fact for fact in facts if isinstance(fact, UserDisabled | UserEnabled)]
    disabled_version = max([0, *(fact.originator_version for fact in access if isinstance(fact, UserDisabled))])
    if began[0].originator_version < disabled_version or (access and isinstance(access[-1], UserDisabled)):
        return False
    uses = [fact.timestamp for fact in facts if isinstance(fact, SessionTouched) and fact.session_id == session_id]
    last_active_at, created_at = max([began[0].timestamp, *uses]), began[0].timestamp
    idle, absolute = timedelta(seconds=began[0].idle_timeout), timedelta(seconds=began[0].absolute_timeout)
    return now < min(last_active_at + idle, created_at + absolute)


# -- history always replays, also one that no decision would have written

SESSION_IDS = st.sampled_from([PHONE, LAPTOP, TABLET])
ATS = st.integers(-IDLE, 10 * IDLE)
ANY_FACT = st.one_of(
    st.builds(created, SESSION_IDS, at=ATS, idle=st.integers(0, 10**7), absolute=st.integers(0, 10**7)),
    st.builds(touched, SESSION_IDS, at=ATS),
    st.builds(ended, SESSION_IDS, st.sampled_from(EndReason), at=ATS),
    st.builds(timed_out, SESSION_IDS, at=ATS, ended_at=ATS),
    st.builds(disabled, at=ATS),
    st.builds(enabled, at=ATS),
    st.builds(erased, at=ATS),
)


@many
@for_all(LIVES)
def test_nothing_follows_the_facts_of_an_erasure(commands: list[Command]):
    life = lived(commands)
    life.ask(Command("erase", lambda user, _, __: user.erase(), 0, 1))
    told = list(life.told)
    for command in commands:
        life.ask(command)
    assert life.told == told
    assert not life.user.sessions


@many
@for_all(st.lists(ANY_FACT, max_size=20))
def test_no_applier_ever_raises(facts: list[Fact]):
    user = given([enrolled(), *facts])
    assert user.version == len(facts) + 1
    assert whole(UserSnapshot.take(user).mutate(None)) == whole(user)


def as_json(state: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(state))
