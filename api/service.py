"""Everything behind HTTP, wired: ledger, store, read models, follower. Tests and scripts start it without a server."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from domain.errors import StoreUnavailable
from domain.ledger import Recorded, SessionLedger
from domain.policies import (
    DestroyKeyOnUserErased,
    EndSessionsOnSessionsInvalidated,
    EndSessionsOnTimeout,
    Policy,
    RevokeSessionsOnRevocationRequested,
    RevokeSessionsOnUserDisabled,
)
from domain.session import Limits
from projections.api_keys import ApiKeysProjection, adopt_keys
from projections.audit import AuditProjection
from projections.erasures import erased_streams
from projections.follower import Follower
from projections.sealer import Sealer
from projections.session_views import SessionQueries, read_invalidations
from projections.sessions import SessionsProjection
from projections.sweeper import Sweeper
from projections.tombstones import EraseUsersOnTombstone
from store.clock import Clock
from store.database import Database
from store.deciding import Decider
from store.erasure import Erasure
from store.keys import KeyStore
from store.long_reads import LongReads
from store.outcome import PATIENCE_S, given_up
from store.raw_log import raw_log
from store.reads import Reads
from store.recorder import Factory, last_recorded_at
from store.schema import create_log, create_working, missing_indexes, owns_log
from store.sealing import SealingMapper
from store.shape import differences
from store.signing import signing_key_of
from store.snapshots import Snapshotter
from store.workers import Workers
from store.writer import BatchWriter, InlineProjection

T = TypeVar("T")

logger = logging.getLogger("ledger.service")


@dataclass(frozen=True, slots=True)
class Stores:
    """Where things are kept. `owner_url` creates the log's tables on PostgreSQL, as a role that the service is not."""

    url: str
    keys_url: str
    master_key_file: Path
    owner_url: str | None = None
    signing_key_file: Path | None = None
    origin: str = "session-ledger"


def beside(master_key_file: Path) -> Path:
    """Where the signing key is when nothing else is said."""
    return master_key_file.with_name("signing.key")


class Service:
    """Opened by its constructor, which creates what is missing; `start` begins to follow; `close` ends all of it."""

    def __init__(self, stores: Stores, limits: Limits, new_id: Callable[[], UUID], clock: Clock | None = None) -> None:
        self._new_id = new_id
        self.database = Database(stores.url)
        self.keys_database = Database(stores.keys_url)
        for database in (self.database, self.keys_database):
            _check(database)
        _create_tables(self.database, stores.owner_url)
        _check_shape(self.database)
        self.keys = KeyStore(self.keys_database, stores.master_key_file)
        self.keys.bind(self.database)
        self.erasure = Erasure(self.database, self.keys)
        self._erase_again()
        self.mapper = SealingMapper(self.keys)
        self.clock = clock or Clock(not_before=last_recorded_at(self.database))
        self.factory = Factory(database=self.database, clock=self.clock, mapper=self.mapper)
        self.ledger = SessionLedger(self.factory, self.keys.pseudonym, limits)
        self.recorder = self.factory.application_recorder()
        self.snapshotter = Snapshotter(self.factory.aggregate_recorder("snapshots"), self.mapper)
        decider = Decider(self.database, self.mapper, self.keys, self.clock, new_id)
        adopt_keys(self.recorder, self.mapper, self.clock.micros(), new_id)
        inline: list[InlineProjection] = [SessionsProjection(), ApiKeysProjection()]
        self.writer = BatchWriter(
            decider, self.recorder, self.mapper, inline, self.snapshotter, self.clock, read_invalidations
        )
        self.ledger.writes_through(self.writer)
        self.revoke_on_request = RevokeSessionsOnRevocationRequested(self.ledger)
        policies: list[Policy] = [
            RevokeSessionsOnUserDisabled(self.ledger),
            self.revoke_on_request,
            EndSessionsOnSessionsInvalidated(lambda: self.sweeper.wake()),
            DestroyKeyOnUserErased(partial(self.erasure.carry_out, waits=False)),  # the follower has but one thread
        ]
        self.follower = Follower(self.recorder, self.mapper, policies, self.clock, [AuditProjection()])
        rule = EndSessionsOnTimeout(self.ledger)
        self.sweeper = Sweeper(self.database, rule, self.follower, self.clock, new_id)
        key_file = stores.signing_key_file or beside(stores.master_key_file)
        self.signing_key = signing_key_of(self.database, key_file, stores.origin)
        self.sealer = Sealer(self.recorder, self.signing_key, self.follower, self.clock)
        self.reads = Reads(self.database)
        self.key_reads = Reads(self.keys_database)
        self.sessions = SessionQueries(self.reads, self.clock)
        self.long_reads = LongReads(self.database)
        self.probing, self.erasing = Workers(2, "probes"), Workers(2, "erasures")
        self.exporting = Workers(4, "exports")

    def _erase_again(self) -> None:
        """Before anything is served, destroy the keys of erased users that a restored backup has brought back."""
        revived = self.keys.without_tombstone(erased_streams(self.database))
        if revived:
            logger.warning("erased users still had keys", extra={"fields": {"users": len(revived)}})
        for stream in revived:
            self.erasure.carry_out(stream)

    def start(self) -> None:
        EraseUsersOnTombstone(self.ledger, self.database, self.keys_database).run(self._new_id())
        self.follower.start()
        self.sweeper.start()
        self.sealer.start()

    def close(self) -> None:
        """Stop following, answer what was submitted, seal it, then let go of the databases."""
        for workers in (self.long_reads, self.probing, self.erasing, self.exporting):
            workers.close()
        self.sweeper.close()
        self.follower.close()
        self.writer.close()
        self.sealer.close()
        self.snapshotter.close()
        self.ledger.close()
        self.keys_database.close()


def _check(database: Database) -> None:
    try:
        database.check_durability()
    except DBAPIError as error:
        raise StoreUnavailable(f"{database.url.render_as_string()} cannot be used: {error.orig}") from error


def _create_tables(database: Database, owner_url: str | None) -> None:
    try:
        if owner_url:
            owner = Database(owner_url)
            with owner.transaction() as connection:
                create_log(connection, app_role=database.url.username)
            owner.close()
        with database.transaction() as connection:
            create_log(connection)
            create_working(connection)
            for projection in (SessionsProjection(), ApiKeysProjection(), AuditProjection()):
                projection.create_tables(connection)
            _check_ownership(connection, owner_url)
            _check_indexes(connection)
    except DBAPIError as error:
        raise StoreUnavailable(f"{database.url.render_as_string()} cannot be prepared: {error.orig}") from error


def _check_ownership(connection: Connection, owner_url: str | None) -> None:
    """On PostgreSQL append-only is worth little when the service's role owns the log, and may drop its triggers."""
    if connection.dialect.name == "postgresql" and owns_log(connection):
        if owner_url:
            raise StoreUnavailable("The service's own role owns the table events; let the owner role own it.")
        logger.warning("the service's role owns the log and could drop its triggers; see LEDGER_DATABASE_OWNER_URL")


def _check_indexes(connection: Connection) -> None:
    if missing := missing_indexes(connection):
        fields = {"indexes": sorted(missing)}
        logger.warning("the log lacks an index; start once with LEDGER_DATABASE_OWNER_URL", extra={"fields": fields})


def _check_shape(database: Database) -> None:
    """Say what protects or proves the log no longer. The service does not need it, but those who trust it do."""
    with raw_log(database) as log:
        if found := [*differences(log)]:
            logger.error("the log is not as it was made; verify it", extra={"fields": {"what": found}})


async def durable(future: "Future[Recorded[T]]") -> Recorded[T]:
    """What a command came to, once it is durable. Raises its refusal, or after `PATIENCE_S` that the store hangs."""
    try:
        return await asyncio.wait_for(asyncio.wrap_future(future), PATIENCE_S)
    except TimeoutError:
        raise given_up(future) from None
