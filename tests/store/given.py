"""What the store's tests start from, and how they look at what came of it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from eventsourcing.persistence import StoredEvent
from sqlalchemy import Connection, inspect, select, text

from api.ids import new_uuid7
from api.service import Service
from domain.aggregate import Context
from domain.events import EndReason, Fact
from domain.ledger import Claim, Command, Decision, Recorded, Request
from domain.session import Session
from domain.user import SignIn, User
from projections.rebuild import rebuild
from projections.session_views import read_invalidations
from projections.sessions import SessionsProjection
from store.database import Database
from store.deciding import Decider
from store.merkle import Subtrees, complete_root
from store.schema import SQLITE_TRIGGERS, audit_access, events, head
from store.writer import BatchWriter, InlineProjection

ROOT = Path(__file__).parents[2]
PATIENCE_S = 15.0


def subtrees_of(leaves: Sequence[bytes]) -> Subtrees:
    """The tree over these hashes of leaves."""
    return lambda level, number: complete_root(leaves[number << level : (number + 1) << level])


def request() -> Request:
    return Request("key:test", uuid4())


def sign_in(**facts: Any) -> SignIn:
    return SignIn(**{"session_id": uuid4(), "token_hash": os.urandom(32), "device": "Chrome on macOS", **facts})


class Access(NamedTuple):
    """What one reader of the audit log asked for in one hour, and how often. `hour`: its beginning, in microseconds."""

    reader: str
    filter: str
    hour: int
    reads: int


def accesses(connection: Connection) -> list[Access]:
    """All that is known of who read the audit log, oldest first."""
    order = (audit_access.c.hour, audit_access.c.reader, audit_access.c.filter)
    return [Access(*row) for row in connection.execute(select(audit_access).order_by(*order))]


def stored(stream: UUID, version: int = 1, state: bytes = b"{}") -> StoredEvent:
    return StoredEvent(stream, version, "Told", state)


class Caller:
    """Somebody who sends commands to a service."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def creates(self, user_id: str = "alice", claim: Claim | None = None, **facts: Any) -> "Future[Recorded[Session]]":
        return self.service.ledger.create_session(user_id, sign_in(**facts), request(), claim)

    def touches(self, session: Session, user_id: str = "alice") -> "Future[Recorded[bool]]":
        return self.service.ledger.touch_session(self.stream(user_id), session.session_id, request())

    def revokes(self, session: Session, user_id: str = "alice") -> "Future[Recorded[bool]]":
        reason = EndReason.REVOKED_BY_USER
        return self.service.ledger.revoke_session(self.stream(user_id), session.session_id, reason, request())

    def disables(self, user_id: str = "alice") -> "Future[Recorded[bool]]":
        return self.service.ledger.disable_user(user_id, request())

    def decides(self, decide: Decision[Any], user_id: str = "alice") -> "Future[Recorded[Any]]":
        return self.service.writer.submit(Command(self.stream(user_id), decide, request()))

    def stream(self, user_id: str = "alice") -> UUID:
        return self.service.keys.pseudonym(user_id)


def result(future: "Future[Recorded[Any]]") -> Any:
    return future.result(PATIENCE_S).result


def refusal(future: "Future[Any]") -> BaseException | None:
    return future.exception(PATIENCE_S)


@contextmanager
def one_batch(service: Service, after: str = "") -> Iterator[None]:
    """What is submitted within the block is taken by the writer as one batch, after a command about somebody."""
    with service.recorder.appending():
        occupied = service.ledger.enrol_user(after or f"somebody {uuid4()}", request())
        until(occupied.running)
        yield
    result(occupied)


@contextmanager
def without_triggers(connection: Connection) -> Iterator[None]:
    """The log of whoever owns it: anything goes. The triggers are back after the block."""
    if connection.dialect.name == "postgresql":
        for table in ("events", "head"):
            connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        yield
        for table in ("events", "head"):
            connection.exec_driver_sql(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        return
    names = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").scalars().all()
    for name in names:
        connection.exec_driver_sql(f"DROP TRIGGER {name}")
    yield
    for trigger in SQLITE_TRIGGERS:
        connection.exec_driver_sql(trigger)


def user(service: Service, user_id: str = "alice") -> User:
    """As the log has him."""
    found: User = service.ledger.repository.get(service.keys.pseudonym(user_id))
    return found


def facts_of(service: Service, user_id: str, act: Callable[[User], Any]) -> list[StoredEvent]:
    """What a decision adds to a user's stream, not yet appended."""
    aggregate = user(service, user_id)
    act(aggregate.acting(Context(service.clock.now(), "key:other", uuid4(), None, new_uuid7)))
    return [service.mapper.to_stored_event(fact) for fact in aggregate.collect_events()]


def topics(service: Service, user_id: str = "alice") -> list[str]:
    return [event.topic for event in service.recorder.select_events(service.keys.pseudonym(user_id))]


def facts(service: Service) -> list[Fact]:
    """The whole log."""
    return [service.mapper.to_domain_event(event) for event in service.recorder.select_notifications(None, 1_000_000)]


def whole(database: Database) -> tuple[Any, ...]:
    """Every row and column of the log and its head."""
    with database.reading() as connection:
        return (
            connection.execute(select(events).order_by(events.c.position)).all(),
            connection.execute(select(head)).all(),
        )


FOLLOWING = {"tracking", "parked", "audit", "audit_types"}


def everything(service: Service) -> dict[str, list[Any]]:
    """Every row of every table, of the log's database and of the keys', but for what follows at its own time."""
    return {**_tables("log", service.database), **_tables("keys", service.keys_database)}


def _tables(of: str, database: Database) -> dict[str, list[Any]]:
    with database.reading() as connection:
        names = {*inspect(connection).get_table_names()} - FOLLOWING
        return {f"{of}.{name}": sorted(map(repr, connection.execute(text(f"SELECT * FROM {name}")))) for name in names}


def assert_consistent(service: Service) -> None:
    """Positions and versions without a gap, times that never decrease, read models that equal a rebuild."""
    rows, [end] = whole(service.database)
    assert [row.position for row in rows] == list(range(1, end.position + 1))
    times = [row.recorded_at for row in rows]
    assert times == sorted(times)
    versions: dict[UUID, int] = {}
    for row in rows:
        assert row.version == versions.get(row.stream, 0) + 1
        versions[row.stream] = row.version
    assert rebuild(service.database, SessionsProjection, dry_run=True).identical


def another_writer(service: Service, *projections: InlineProjection) -> None:
    """Let the ledger write through a writer with these projections in the place of its own."""
    decider = Decider(service.database, service.mapper, service.keys, service.clock, new_uuid7)
    service.writer.close()
    service.writer = BatchWriter(
        decider, service.recorder, service.mapper, projections, service.snapshotter, service.clock, read_invalidations
    )
    service.ledger.writes_through(service.writer)


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(PATIENCE_S) for future in [pool.submit(call) for call in calls]]


def until(is_true: Callable[[], Any], *, seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@contextmanager
def child(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Another process that runs this script."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
