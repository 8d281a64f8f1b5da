"""Killed with SIGKILL at the worst moments, under load: what was acknowledged is there, once, and nothing by half.

It prints its seed; PROOF_SEED repeats the moments, though not what threads and disk make of them.
"""

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from eventsourcing.persistence import StoredEvent
from sqlalchemy import select

from api.ids import new_uuid7
from api.service import Service, Stores
from domain.errors import IdempotentSessionEnded, UserDisabled
from domain.events import EndReason, Fact, Sealed, SessionCreated, SessionRevoked, SessionTouched, UserEnrolled
from domain.events import UserDisabled as Disabled
from domain.events import UserEnabled as Enabled
from domain.ledger import Claim
from domain.session import Limits
from store.failpoints import Failpoint
from store.keys import KeyStore
from store.schema import events, identities
from store.sealing import unseal_client, unseal_user_id
from tests.postgres import Database, PostgresCluster
from tests.store.given import ROOT, assert_consistent, request, sign_in, until

SEED = int(os.environ.get("PROOF_SEED") or random.getrandbits(32))
MOMENTS = 30
LONGEST_S = 20.0
POLICY = "revoke-sessions-on-user-disabled"


class Child:
    """A worker that is loaded and waits; then under load; then dead."""

    def __init__(self, stores: Stores) -> None:
        where = (stores.url, stores.keys_url, str(stores.master_key_file), stores.owner_url or "")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.proof.kill_worker", *where],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: list[list[str]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def begin(self, seed: int, failpoint: str = "-", passes: int = 0) -> None:
        assert self._process.stdin
        print(seed, failpoint, passes, file=self._process.stdin, flush=True)

    def kill_after(self, lines: int, seconds: float) -> None:
        """At a moment after so many lines."""
        until(lambda: len(self.lines) >= lines or self._process.poll() is not None)
        time.sleep(seconds)
        self._process.kill()
        self.await_death()

    def await_death(self) -> None:
        assert self._process.wait(LONGEST_S) == -9, "it was to die by SIGKILL"
        self._reader.join(LONGEST_S)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.endswith("\n"):
                self.lines.append(line.split())


class Promised(NamedTuple):
    """An idempotency key, as it was announced before it was sent."""

    user_id: str
    session_id: UUID
    key: bytes


@dataclass
class Heard:
    """What the parent was told over all lives of the child."""

    created: dict[UUID, int] = field(default_factory=dict)
    touched: Counter[UUID] = field(default_factory=Counter)
    revoked: dict[UUID, int] = field(default_factory=dict)
    disabled: Counter[str] = field(default_factory=Counter)
    enabled: Counter[str] = field(default_factory=Counter)
    claims: list[Promised] = field(default_factory=list)

    def add(self, lines: list[list[str]]) -> None:
        self.claims = []
        for what, user_id, session_id, last in lines:
            match what:
                case "claiming":
                    self.claims.append(Promised(user_id, UUID(session_id), bytes.fromhex(last)))
                case "created":
                    self.created[UUID(session_id)] = int(last)
                case "touched":
                    self.touched[UUID(session_id)] += 1
                case "revoked":
                    self.revoked[UUID(session_id)] = int(last)
                case "disabled":
                    self.disabled[user_id] += 1
                case "enabled":
                    self.enabled[user_id] += 1


class Log:
    """The whole log, sorted for questions."""

    def __init__(self, service: Service) -> None:
        self.facts: list[tuple[int, Fact]] = []
        with service.database.reading() as connection:
            stored_columns = (events.c.stream, events.c.version, events.c.topic, events.c.state)
            rows = connection.execute(select(events.c.position, *stored_columns).order_by(events.c.position))
            for position, *stored in rows:
                fact: Any = service.mapper.to_domain_event(StoredEvent(*stored))
                self.facts.append((position, fact))
            self.users = {row.stream: row.user_id for row in connection.execute(select(identities))}

    def of(self, kind: type[Any]) -> list[tuple[int, Any]]:
        return [(position, fact) for position, fact in self.facts if isinstance(fact, kind)]


def check_acknowledged(log: Log, heard: Heard) -> None:
    """Each acknowledged fact is there: once, where only once is right, and not behind the position that was told."""
    created, revoked = log.of(SessionCreated), log.of(SessionRevoked)
    at = {fact.session_id: position for position, fact in created}
    assert len(at) == len(created), "a session was created twice"
    assert [i for i, position in heard.created.items() if at.get(i, position + 1) > position] == []
    ended = {fact.session_id: position for position, fact in revoked}
    assert len(ended) == len(revoked), "a session was ended twice"
    assert [i for i, position in heard.revoked.items() if ended.get(i, position + 1) > position] == []
    touched = Counter(fact.session_id for _, fact in log.of(SessionTouched))
    assert heard.touched - touched == Counter()
    for kind, told in ((Disabled, heard.disabled), (Enabled, heard.enabled)):
        assert told - Counter(log.users[fact.originator_id] for _, fact in log.of(kind)) == Counter()
    ids = [fact.event_id for _, fact in log.facts]
    assert len(set(ids)) == len(ids)


def check_keys(log: Log, keys: KeyStore) -> None:
    """What was sealed can be opened: each key was durable before its fact."""
    known = keys.find(list(log.users))
    for _, fact in log.facts:
        if isinstance(fact, UserEnrolled):
            assert unseal_user_id(known[fact.originator_id], fact) == log.users[fact.originator_id]
        elif isinstance(fact, SessionCreated) and fact.client:
            assert isinstance(fact.client, Sealed)
            place = (fact.originator_id, fact.originator_version, fact.event_id)
            assert unseal_client(known[fact.originator_id], fact.client.ciphertext, *place).user_agent == "canary"


def check_claims(service: Service, claims: list[Promised]) -> None:
    """An idempotency key sent again gets the session that it made, whether or not that was ever told (F-02)."""
    for user_id, session_id, key in claims[-8:]:
        again = sign_in()
        claim = Claim(key, b"body", lambda _, again=again: again.session_id.bytes)  # type: ignore[misc]
        try:
            recorded = service.ledger.create_session(user_id, again, request(), claim).result(LONGEST_S)
        except (IdempotentSessionEnded, UserDisabled):
            continue
        was_made = session_id in {fact.session_id for _, fact in Log(service).of(SessionCreated)}
        assert recorded.replay == (session_id.bytes if was_made else None)


def check_policy(service: Service) -> None:
    """Once the follower has caught up, no disabled user has a session, and each was ended once, for that reason."""
    service.start()
    until(lambda: service.follower.is_leading)
    until(lambda: all(progress.lag_events == 0 for progress in service.follower.progress()))
    live: dict[UUID, set[UUID]] = defaultdict(set)
    disabled: set[UUID] = set()
    for _, fact in Log(service).facts:
        stream = fact.originator_id
        match fact:
            case SessionCreated():
                assert stream not in disabled
                live[stream].add(fact.session_id)
            case SessionRevoked():
                live[stream].discard(fact.session_id)
                assert stream not in disabled or fact.reason is EndReason.USER_DISABLED
            case Disabled():
                disabled.add(stream)
            case Enabled():
                assert not live[stream]
                disabled.discard(stream)
    assert {stream: live[stream] for stream in disabled if live[stream]} == {}


@pytest.fixture
def stores(database: Database, tmp_path: Path) -> Stores:
    return Stores(database.url, database.keys_url, tmp_path / "master.key", database.owner_url)


@pytest.fixture
def children(stores: Stores) -> Iterator["Children"]:
    children = Children(stores)
    yield children
    children.close()


class Children:
    """One child after another; the next one is loaded while the last one's remains are looked at."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._all: list[Child] = []
        self._next = self._make()

    def next(self) -> Child:
        child, self._next = self._next, self._make()
        return child

    def close(self) -> None:
        for child in self._all:
            child.close()

    def _make(self) -> Child:
        self._all.append(Child(self._stores))
        return self._all[-1]


def look(stores: Stores, heard: Heard, child: Child, *, whole: bool) -> None:
    """Everything that must hold after a crash, as the next service sees it."""
    heard.add(child.lines)
    service = Service(stores, Limits(touch_interval=0, max_sessions=5), new_uuid7)
    try:
        log = Log(service)
        check_acknowledged(log, heard)
        check_claims(service, heard.claims)
        if whole:
            check_keys(log, service.keys)
            check_policy(service)
            assert_consistent(service)
    finally:
        service.close()


def test_at_each_failpoint(stores: Stores, children: Children):
    print(f"PROOF_SEED={SEED}")
    chance, heard = random.Random(SEED), Heard()
    for failpoint in Failpoint:
        child = children.next()
        child.begin(chance.getrandbits(32), failpoint, chance.randrange(5, 15))
        child.await_death()
        look(stores, heard, child, whole=True)
    assert len(heard.created) > 50
    assert len(heard.revoked) > 5


def test_at_random_moments(stores: Stores, children: Children):
    print(f"PROOF_SEED={SEED}")
    chance, heard = random.Random(SEED), Heard()
    for number in range(MOMENTS):
        child = children.next()
        child.begin(chance.getrandbits(32))
        child.kill_after(chance.randrange(120), chance.uniform(0, 0.02))
        look(stores, heard, child, whole=number % 5 == 4)
    assert len(heard.created) > 100
    assert len(heard.disabled) > 10


def test_when_another_process_dies_this_one_goes_on(stores: Stores, children: Children):
    heard, dying, living = Heard(), children.next(), children.next()
    living.begin(1)
    dying.begin(2)
    until(lambda: len(living.lines) > 50 and len(dying.lines) > 50)
    dying.kill_after(0, 0)
    so_far = len(living.lines)
    until(lambda: len(living.lines) > so_far + 100)
    living.kill_after(0, 0)
    heard.add(dying.lines)
    look(stores, heard, living, whole=True)


def test_when_postgresql_itself_crashes(postgres_cluster: PostgresCluster, tmp_path: Path):
    """F-07. The child goes on when the server is back, or stays as it is; what it had acknowledged is there."""
    with postgres_cluster.fresh_schema() as log, postgres_cluster.fresh_schema() as keys:
        stores = Stores(log.app_url, keys.app_url, tmp_path / "master.key", log.owner_url)
        children, heard = Children(stores), Heard()
        try:
            for seed in range(2):
                child = children.next()
                child.begin(seed)
                until(lambda child=child: len(child.lines) > 100)
                postgres_cluster.stop(mode="immediate")
                postgres_cluster.start()
                so_far = len(child.lines)
                until(lambda child=child, so_far=so_far: len(child.lines) > so_far + 20)
                child.kill_after(0, 0)
                look(stores, heard, child, whole=True)
        finally:
            children.close()
