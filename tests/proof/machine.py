"""VER-01's machine: random commands, through two processes on one database, each told to the model as well."""

from contextlib import AbstractContextManager, ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from api.service import Service
from domain.policies import RevokeSessionsOnUserDisabled
from domain.user import INVALIDATED
from projections.follower import Follower
from tests.api.client import ADMIN, Api, Headers, SignedIn, running, settings_of
from tests.clock import NOON, ManualClock
from tests.postgres import Database
from tests.proof.model import ABSOLUTE_S, CAP, IDLE_S, KEPT_S, TOUCH_S, Model, Session
from tests.proof.observer import USERS, WAYS, Observer, headers_of
from tests.store.given import assert_consistent, request, result, until

LIMITS = {
    "idle_timeout": IDLE_S[False],
    "absolute_timeout": ABSOLUTE_S[False],
    "remember_idle_timeout": IDLE_S[True],
    "remember_absolute_timeout": ABSOLUTE_S[True],
    "touch_interval": TOUCH_S,
    "max_sessions_per_user": CAP,
}
REVOKE_ALL: dict[str, tuple[str, str, dict[str, Any]]] = {
    "all": ("POST", "/api/sessions/revoke-all", {}),
    "all but this": ("POST", "/api/sessions/revoke-all", {"json": {"except_current": True}}),
    "the others": ("DELETE", "/api/sessions", {}),
}
TICK = timedelta(microseconds=1)


process, user, way, pick = (
    st.sampled_from([0, 1]),
    st.sampled_from(["alice", *USERS]),
    st.sampled_from(WAYS),
    st.integers(0, 11),
)
remember, key = st.booleans(), st.sampled_from([None, None, "one", "two"])
before = st.sampled_from([timedelta(0), TICK])

COMMANDS: list[tuple[int, str, tuple[st.SearchStrategy[Any], ...]]] = [
    (1, "wait", (st.sampled_from([0.000001, 30, 59, 60, 61, 300, 600, 3600, 86400, 604800]),)),
    (4, "sign_in", (process, user, remember, key)),
    (1, "sign_in_again", (process, pick, st.sampled_from([None, None, None, *USERS]), remember, key)),
    (1, "repeat", (process, st.sampled_from(["one", "two"]), st.booleans(), before)),
    (1, "use", (process, pick, way)),
    (3, "use_after", (process, pick, way, st.just("touch interval"), before)),
    (1, "use_after", (process, pick, way, st.just("deadline"), before)),
    (1, "sign_out", (process, pick, way)),
    (1, "revoke_one", (process, pick, way, pick)),
    (1, "revoke_all", (process, pick, way, st.sampled_from([*REVOKE_ALL]))),
    (1, "revoke_as_administrator", (process, pick, st.booleans())),
    (
        1,
        "revoke_many",
        (process, st.sampled_from([None, ["alice"], [*USERS]]), pick, st.sampled_from([timedelta(0), TICK, None])),
    ),
    (1, "disable_or_enable", (process, user, st.sampled_from(["disable", "enable", "disable enable"]))),
    (1, "work", (process, st.sampled_from(["sweep", "follow", "restart"]))),
]
# One rule that chooses among all: rules of their own would be switched off, half of them in each run.
commands = st.one_of(
    st.tuples(st.just(name), *arguments) for weight, name, arguments in COMMANDS for _ in range(weight)
)


class LedgerMachine(RuleBasedStateMachine):
    """Each rule tells the model and one of the processes the same, and compares the answers."""

    def __init__(self, database: AbstractContextManager[Database], directory: Path) -> None:
        super().__init__()
        self.opened = ExitStack()
        self.clock = ManualClock()
        self.model = Model(NOON)
        self.observer = Observer(self.model)
        self.steps = 0
        self.settings = settings_of(self.opened.enter_context(database), directory, **LIMITS)
        self.running = [self.opened.enter_context(ExitStack()) for _ in range(2)]
        self.apis = [self.start(stack) for stack in self.running]

    def start(self, stack: ExitStack) -> Api:
        return stack.enter_context(running(self.settings, self.clock))

    # -- commands

    @initialize(remember=st.booleans(), longest_wait=st.sampled_from([60, 3600, 604800]))
    def begin(self, remember: bool, longest_wait: int) -> None:
        self.longest_wait = longest_wait
        for user in USERS:
            self._sign_in(0, user, remember, None, None)

    @rule(command=commands)
    def act(self, command: tuple[Any, ...]) -> None:
        name, *arguments = command
        getattr(self, name)(*arguments)

    def sign_in(self, process: int, user: str, remember: bool, key: str | None) -> None:
        self._sign_in(process, user, remember, None, key)

    def sign_in_again(self, process: int, pick: int, user: str | None, remember: bool, key: str | None) -> None:
        replaced = self.picked(pick)
        self._sign_in(process, user or replaced.user, remember, replaced, key)

    def _sign_in(self, process: int, user: str, remember: bool, replaced: Session | None, key: str | None) -> None:
        body: dict[str, Any] = {"user_id": user, "remember_me": remember, "user_agent": "curl/8.0"}
        body |= {"replaces": replaced.told.token} if replaced else {}
        status, session = self.model.sign_in(user, remember, replaced, key)
        answer = self.apis[process].begin(body, **({"Idempotency-Key": key} if key else {}))
        assert answer.status_code == status, answer.text
        if session:
            told = SignedIn(user, answer.json()["session"]["id"], answer.json()["token"], answer.json()["cookie"])
            assert (session.told is not None) == ("Idempotency-Replayed" in answer.headers)
            assert session.told in (None, told)
            session.told = told

    def repeat(self, process: int, key: str, is_forgotten: bool, before: timedelta) -> None:
        """The same with the same key, at once or about when it is forgotten."""
        if key in self.model.kept:
            asked, first = self.model.kept[key]
            if is_forgotten:
                self.wait_until(first.created + timedelta(seconds=KEPT_S) - before)
            self._sign_in(process, *asked, key)

    def use(self, process: int, pick: int, way: str) -> None:
        self._use(process, self.picked(pick), way)

    def _use(self, process: int, session: Session, way: str) -> None:
        expected = 200 if self.model.use(session) else 401
        assert self.send(process, "GET", "/api/auth/session", headers_of(session, way, self.model.now)) == expected

    def sign_out(self, process: int, pick: int, way: str) -> None:
        session = self.picked(pick)
        self.model.end([session], "signed_out")
        assert self.send(process, "POST", "/api/auth/signout", headers_of(session, way, self.model.now)) == 204

    def revoke_one(self, process: int, pick: int, way: str, other: int) -> None:
        by, session = self.picked(pick), self.picked(other)
        expected = 401
        if self.model.use(by):
            expected = 200 if by.user == session.user else 404
            self.model.end([session] if by.user == session.user else [], "revoked_by_user")
        assert (
            self.send(process, "DELETE", f"/api/sessions/{session.told.id}", headers_of(by, way, self.model.now))
            == expected
        )

    def revoke_all(self, process: int, pick: int, way: str, which: str) -> None:
        by = self.picked(pick)
        method, path, body = REVOKE_ALL[which]
        expected = 401
        if self.model.use(by):
            expected = 200
            self.model.end([s for s in self.model.of(by.user) if s is not by or which == "all"], "revoke_all")
        assert self.send(process, method, path, headers_of(by, way, self.model.now), **body) == expected

    def revoke_as_administrator(self, process: int, pick: int, all_of_them: bool) -> None:
        session = self.picked(pick)
        ending = self.model.of(session.user) if all_of_them else [session]
        count = self.model.end(ending, "revoked_by_admin")
        one = "" if all_of_them else f"/{session.told.id}"
        answer = self.apis[process].delete(f"/api/users/{session.user}/sessions{one}", ADMIN)
        assert answer.status_code == 200
        assert answer.json().get("revoked_count", count) == count

    def revoke_many(self, process: int, users: list[str] | None, pick: int, after: timedelta | None) -> None:
        """Of everybody or of these users, what began before about the moment at which some session did, or all."""
        moment = None if after is None else min(self.picked(pick).created + after, self.model.now)
        of_these = [s for s in self.model.sessions if users is None or s.user in users]
        ending = [s for s in of_these if moment is None or s.created < moment]
        count = self.model.end(ending, "revoked_by_admin", INVALIDATED if users is None else None)
        body: dict[str, Any] = {"reason": "revoked_by_admin"}
        body |= {"user_ids": users} if users else {}
        body |= {"created_before": moment.isoformat()} if moment else {}
        asked = [{**body, "dry_run": True}, {**body, "dry_run": False}]
        answers = [self.apis[process].post("/api/sessions/revoke", ADMIN, json=body) for body in asked]
        assert [(answer.status_code, answer.json().get("revoked_count")) for answer in answers] == [(200, count)] * 2
        self.wait(TICK.total_seconds())  # what begins in this very instant counts as begun in the next one

    def disable_or_enable(self, process: int, user: str, what: str) -> None:
        for act in what.split():
            (self.model.disable if act == "disable" else self.model.disabled.discard)(user)
            assert self.send(process, "POST", f"/api/users/{user}/{act}", ADMIN) == 200

    # -- time, and what happens on its own

    def wait(self, seconds: float) -> None:
        self.wait_until(self.model.now + timedelta(seconds=seconds))

    def use_after(self, process: int, pick: int, way: str, what: str, before: timedelta) -> None:
        """At the very moment, or just before."""
        session = self.picked(pick)
        moment = session.deadline.at if what == "deadline" else session.used + timedelta(seconds=TOUCH_S)
        self.wait_until(moment - before)
        self._use(process, session, way)

    def wait_until(self, moment: datetime) -> None:
        moment = min(max(moment, self.model.now), self.model.now + timedelta(seconds=self.longest_wait))
        self.clock.advance((moment - self.model.now).total_seconds())
        assert self.clock.now() == moment
        self.model.wait_until(moment)

    def work(self, process: int, chore: str) -> None:
        if chore == "sweep":
            self.apis[process].service.sweeper.sweep()
            assert self.apis[process].service.sweeper.sweep() == 0
        elif chore == "follow":
            follow(self.apis[process].service)
        else:
            self.running[process].close()
            self.apis[process] = self.start(self.running[process])

    # -- what is seen

    @invariant()
    def all_agree(self) -> None:
        """Through either process in turn, whichever did the last command."""
        self.steps += 1
        self.observer.all_agree(self.apis[self.steps % 2], self.steps)

    def teardown(self) -> None:
        with self.opened:
            service = self.apis[0].service
            follow(service)
            service.sweeper.sweep()
            assert_consistent(service)
            self.observer.the_log_agrees(service)

    # -- how it is done

    def picked(self, pick: int) -> Session:
        """One of the sessions that live, mostly, or one of all that were ever begun."""
        live = self.model.live()
        among = live if live and pick % 4 else self.model.sessions
        return among[-1 - pick % len(among)]

    def send(self, process: int, method: str, path: str, headers: Headers, **more: Any) -> int:
        """The status; what the request set off, like a touch, is done then."""
        api = self.apis[process]
        status = api.request(method, path, headers, **more).status_code
        assert result(api.service.ledger.enable_user("nobody", request())) is False
        return status


def follow(service: Service) -> None:
    """Let the policy catch up, and stop it."""
    policies = [RevokeSessionsOnUserDisabled(service.ledger)]
    follower = Follower(service.recorder, service.mapper, policies, service.clock)
    follower.start()
    until(lambda: follower.is_leading and follower.progress()[0].lag_events == 0)
    follower.close()
