"""Drives a service from a test, call after call: a command waits until it is durable, a query until it answers."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar
from uuid import UUID, uuid4

from eventsourcing.persistence import StoredEvent
from sqlalchemy import select, update

from api.service import Service
from domain.events import EndReason, Fact
from domain.ledger import Recorded, Request
from domain.user import DISABLED, SignIn
from projections.follower import Follower, Progress
from projections.session_views import SessionView
from store.database import Database as Connections
from store.schema import tracking
from tests.postgres import Database

T = TypeVar("T")
F = TypeVar("F", bound=Fact)

ACTOR = "key:front-desk"
NEWEST = 2**31 - 1
PATIENCE_S = 20.0


def request(actor: str = ACTOR) -> Request:
    return Request(actor, uuid4())


def token_hash(session_id: UUID) -> bytes:
    """The digest of the token that a driver's session was opened with."""
    return hashlib.sha256(session_id.bytes).digest()


def until(is_true: Callable[[], Any]) -> None:
    """Wait for a condition; it fails the test when it does not come true."""
    give_up = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.005)


class Driver:
    def __init__(self, service: Service) -> None:
        self.service = service
        self.ledger = service.ledger
        self._runner = asyncio.Runner()
        self.ask(service.reads.open())

    def close(self) -> None:
        self.ask(self.service.reads.close())
        self._runner.close()

    def ask(self, question: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(question)

    # -- commands

    def sign_in(self, user_id: str = "alice", **said: Any) -> UUID:
        """A new session's id."""
        return self.signing_in(user_id, **said).result(PATIENCE_S).result.session_id

    def signing_in(self, user_id: str = "alice", **said: Any) -> "Future[Recorded[Any]]":
        """The same without waiting."""
        session_id = said.pop("session_id", None) or uuid4()
        sign_in = SignIn(session_id, token_hash(session_id), "Chrome on macOS", **said)
        return self.ledger.create_session(user_id, sign_in, request())

    def touch(self, session_id: UUID, user_id: str = "alice") -> bool:
        return self.ledger.touch_session(self.stream(user_id), session_id, request()).result(PATIENCE_S).result

    def revoke(
        self,
        session_id: UUID,
        reason: EndReason = EndReason.REVOKED_BY_USER,
        user_id: str = "alice",
        actor: str = ACTOR,
    ) -> bool:
        revoking = self.ledger.revoke_session(self.stream(user_id), session_id, reason, request(actor))
        return revoking.result(PATIENCE_S).result

    def disable(self, user_id: str = "alice") -> bool:
        return self.ledger.disable_user(user_id, request()).result(PATIENCE_S).result

    def enable(self, user_id: str = "alice") -> bool:
        return self.ledger.enable_user(user_id, request()).result(PATIENCE_S).result

    def erase(self, user_id: str = "alice") -> bool:
        return self.ledger.erase_user(user_id, request()).result(PATIENCE_S).result

    # -- questions

    def stream(self, user_id: str = "alice") -> UUID:
        return self.service.keys.pseudonym(user_id)

    def active(self, user_id: str = "alice") -> list[UUID]:
        """The ids in the list of active sessions."""
        return [view.session_id for view in self.ask(self.service.sessions.active(self.stream(user_id)))]

    def history(
        self, user_id: str = "alice", *, ended_only: bool = False, before: int = NEWEST, limit: int = 100
    ) -> list[SessionView]:
        stream = self.stream(user_id)
        return self.ask(self.service.sessions.history(stream, ended_only=ended_only, before=before, limit=limit))

    def by_token(self, session_id: UUID) -> SessionView | None:
        return self.ask(self.service.sessions.by_token(token_hash(session_id)))

    def by_id(self, session_id: UUID) -> SessionView | None:
        return self.ask(self.service.sessions.by_id(session_id))

    def view(self, session_id: UUID) -> SessionView:
        """What both look-ups say of a session that exists."""
        view = self.by_token(session_id)
        assert view is not None
        assert view == self.by_id(session_id)
        return view

    def is_accepted(self, session_id: UUID) -> bool:
        return self.view(session_id).end is None

    def facts(self, kind: type[F]) -> list[F]:
        """The log's facts of this kind, in order."""
        log = self.service.recorder.select_notifications(None, 1_000_000)
        facts = [self.service.mapper.to_domain_event(notification) for notification in log]
        return [fact for fact in facts if isinstance(fact, kind)]

    def head(self) -> int:
        return self.service.recorder.max_notification_id() or 0

    def tracked(self, name: str) -> int | None:
        """A tracking row."""
        with self.service.database.reading() as connection:
            return connection.execute(select(tracking.c.position).where(tracking.c.name == name)).scalar()


def progress_of(follower: Follower, name: str = DISABLED.removeprefix("policy:")) -> Progress:
    [progress] = [each for each in follower.progress() if each.name == name]
    return progress


def has_caught_up(
    driver: Driver, follower: Follower | None = None, name: str = DISABLED.removeprefix("policy:")
) -> bool:
    follower = follower or driver.service.follower
    return follower.is_leading and progress_of(follower, name).position == driver.head()


def set_tracked(driver: Driver, name: str, position: int) -> None:
    """Move a tracking row by hand."""
    with driver.service.database.transaction() as connection:
        moved = update(tracking).where(tracking.c.name == name).values(position=position)
        assert connection.execute(moved).rowcount == 1


def insert_as_owner(service: Service, database: Database, event: StoredEvent) -> None:
    """Past the service: on PostgreSQL with the rights of the log's owner."""
    owner = Connections(database.owner_url or database.url)
    with owner.transaction() as connection:
        position = (service.recorder.max_notification_id() or 0) + 1
        row = (
            position,
            service.clock.micros(),
            event.originator_version,
            event.originator_id,
            event.topic,
            event.state,
        )
        marks = ", ".join(["?" if database.kind == "sqlite" else "%s"] * len(row))
        columns = "position, recorded_at, version, stream, topic, state"
        connection.exec_driver_sql(f"INSERT INTO events ({columns}) VALUES ({marks})", row)
    owner.close()
