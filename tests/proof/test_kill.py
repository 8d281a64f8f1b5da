"""Killed with SIGKILL at the worst moments, under load: what was acknowledged is there, once, and nothing by half.

It prints its seed; PROOF_SEED repeats the moments, though not what threads and disk make of them.
"""

import os
import random
import subprocess
import sys
import threading
import time
from collections import defaultdict
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
from domain.events import EndReason, Fact, Sealed, SessionCreated, SessionRevoked, UserEnrolled
from domain.events import UserDisabled as Disabled
from domain.events import UserEnabled as Enabled
from domain.ledger import Claim
from domain.session import Limits
from projections.audit import counts, newest
from projections.audit_filter import AuditFilter
from store.failpoints import Failpoint
from store.keys import KeyStore
from store.schema import events, identities
from store.sealing import unseal_client, unseal_user_id
from tests.postgres import PostgresCluster
from tests.projections.driver import Driver
from tests.proof.erasing_worker import ERASING
from tests.store.given import ROOT, assert_consistent, request, sign_in, until

SEED = int(os.environ.get("PROOF_SEED") or random.getrandbits(32))
MOMENTS = 30
LONGEST_S = 20.0
COMMITTED_UNTOLD, TRIES = (Failpoint.AFTER_COMMIT, Failpoint.BEFORE_REPLY), 12  # 7 of 8 batches there have a claim
ROTATING = (Failpoint.AFTER_NEW_MASTER, Failpoint.AFTER_REWRAP, Failpoint.BEFORE_OLD_MASTER_LEAVES)
ELSEWHERE = (*ERASING, *ROTATING, Failpoint.AFTER_SIGNING)  # not on the way of what this load asks for
UNDER_LOAD = [failpoint for failpoint in Failpoint if failpoint not in ELSEWHERE]


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


TOPICS = {
    "created": "SessionCreated",
    "touched": "SessionTouched",
    "revoked": "SessionRevoked",
    "disabled": "UserDisabled",
    "enabled": "UserEnabled",
}
ONLY_ONCE = ("SessionCreated", "SessionRevoked")


@dataclass
class Heard:
    """What the parent was told over all lives of the child: what, about whom, and each time up to which position."""

    told: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    claims: list[Promised] = field(default_factory=list)

    def add(self, lines: list[list[str]]) -> None:
        self.claims = []
        for what, user_id, session_id, last in lines:
            if what == "claiming":
                self.claims.append(Promised(user_id, UUID(session_id), bytes.fromhex(last)))
            else:
                self.told[what, user_id if session_id == "-" else session_id].append(int(last))

    def count(self, what: str) -> int:
        return sum(len(positions) for (kind, _), positions in self.told.items() if kind == what)

    def was_told(self, claim: Promised) -> bool:
        return ("created", str(claim.session_id)) in self.told


class Log:
    """The whole log, sorted for questions."""

    def __init__(self, service: Service) -> None:
        self.facts: list[tuple[int, Fact]] = []
        with service.database.reading() as connection:
            stored_columns = (events.c.stream, events.c.version, events.c.topic, events.c.state)
            rows = connection.execute(select(events.c.position, *stored_columns).order_by(events.c.position))
            stored = [(position, StoredEvent(*event)) for position, *event in rows]
            self.users = {row.stream: row.user_id for row in connection.execute(select(identities))}
        self.places: dict[tuple[str, str], list[int]] = defaultdict(list)
        for position, event in stored:
            fact: Any = service.mapper.to_domain_event(event)
            self.facts.append((position, fact))
            about = getattr(fact, "session_id", None) or self.users[fact.originator_id]
            self.places[event.topic, str(about)].append(position)

    def has(self, session_id: UUID) -> bool:
        return ("SessionCreated", str(session_id)) in self.places

    def disabled(self) -> list[str]:
        """Who is disabled at its end."""
        last = {f.originator_id: f for _, f in self.facts if isinstance(f, Disabled | Enabled)}
        return [self.users[stream] for stream, fact in last.items() if isinstance(fact, Disabled)]


def check_acknowledged(log: Log, heard: Heard) -> None:
    """Each acknowledged fact is there: once, where only once is right, and not behind the position that was told."""
    assert [place for place, at in log.places.items() if place[0] in ONLY_ONCE and len(at) > 1] == []
    for (what, about), told in heard.told.items():
        there = log.places.get((TOPICS[what], about), [])
        assert len(there) >= len(told), (what, about)
        assert all(at <= up_to for at, up_to in zip(there, sorted(told), strict=False)), (what, about)
    ids = [fact.event_id for _, fact in log.facts]
    assert len(set(ids)) == len(ids)


def check_refused(log: Log, service: Service) -> None:
    """Nobody who is disabled has a session that is let in, though the policy has not come to end them."""
    driver = Driver(service)
    try:
        assert {user_id: found for user_id in log.disabled() if (found := driver.active(user_id))} == {}
    finally:
        driver.close()


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


def check_claims(log: Log, service: Service, heard: Heard) -> int:
    """An idempotency key sent again gets the session that it made, if it did (F-02); how many were made untold.

    All that were never answered are sent again, and the last ones of those that were.
    """
    untold = [claim for claim in heard.claims if not heard.was_told(claim)]
    told = [claim for claim in heard.claims if heard.was_told(claim)]
    for user_id, session_id, key in untold + told[-8:]:
        again = sign_in()
        claim = Claim(key, b"body", lambda _, again=again: again.session_id.bytes)  # type: ignore[misc]
        try:
            recorded = service.ledger.create_session(user_id, again, request(), claim).result(LONGEST_S)
        except IdempotentSessionEnded:
            assert log.has(session_id)
        except UserDisabled:
            assert not log.has(session_id) or user_id in log.disabled()
        else:
            assert recorded.replay == (session_id.bytes if log.has(session_id) else None)
    return sum(log.has(claim.session_id) for claim in untold)


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
    check_audit(service)


def check_audit(service: Service) -> None:
    """The audit read model has each event of the log once, though its follower was killed at any point, too."""
    log = [(position, fact.event_id) for position, fact in Log(service).facts]
    with service.database.reading() as connection:
        rows = newest(connection, AuditFilter(), len(log) + 1_000)
        counted = counts(connection)
    assert [(row.position, row.event_id) for row in reversed(rows)][: len(log)] == log
    assert sum(counted.values()) == len(rows)


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


def look(stores: Stores, heard: Heard, child: Child, *, whole: bool) -> int:
    """Everything that must hold after a crash, as the next service sees it; how many sessions were made untold.

    What was left is looked at before anything is written: the next write brings read models up to the log.
    """
    heard.add(child.lines)
    service = Service(stores, Limits(touch_interval=0, max_sessions=5), new_uuid7)
    try:
        log = Log(service)
        check_acknowledged(log, heard)
        check_refused(log, service)
        assert_consistent(service)
        made_untold = check_claims(log, service, heard)
        if whole:
            check_keys(log, service.keys)
            check_policy(service)
            assert_consistent(service)
    finally:
        service.close()
    return made_untold


def test_at_each_failpoint(stores: Stores, children: Children):
    print(f"PROOF_SEED={SEED}")
    chance, heard = random.Random(SEED), Heard()

    def made_untold_at(failpoint: Failpoint) -> int:
        child = children.next()
        child.begin(chance.getrandbits(32), failpoint, chance.randrange(5, 15))
        child.await_death()
        return look(stores, heard, child, whole=True)

    for failpoint in UNDER_LOAD:
        if failpoint in COMMITTED_UNTOLD:
            assert any(made_untold_at(failpoint) for _ in range(TRIES)), f"no claim was in a batch at {failpoint}"
        else:
            made_untold_at(failpoint)
    assert heard.count("created") > 50
    assert heard.count("revoked") > 5


def test_at_random_moments(stores: Stores, children: Children):
    print(f"PROOF_SEED={SEED}")
    chance, heard = random.Random(SEED), Heard()
    for number in range(MOMENTS):
        child = children.next()
        child.begin(chance.getrandbits(32))
        child.kill_after(chance.randrange(120), chance.uniform(0, 0.02))
        look(stores, heard, child, whole=number % 5 == 4)
    assert heard.count("created") > 100
    assert heard.count("disabled") > 10


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
