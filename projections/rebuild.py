"""Rebuilding a read model (D11): fold the log anew beside the live tables, compare the two, switch.

The live tables serve all the time. A rebuild that was killed goes on where it was; one that fails changes nothing.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg.errors
from sqlalchemy import Connection, func, inspect, select, update
from sqlalchemy.exc import OperationalError

from domain.errors import StoreUnavailable
from projections.api_keys import ApiKeysProjection
from projections.audit import AuditProjection
from projections.comparing import Difference, count_differing, differing_rows, shape_difference
from projections.leadership import leadership
from projections.parking import resume
from projections.sessions import SessionsProjection
from projections.shadow import SUFFIX, Rebuildable, Report, Shadow
from projections.switching import drop_replaced, put_in_place
from store.database import Database
from store.recorder import Append, tracked
from store.schema import events, tracking
from store.schema import head as log_head

PROJECTIONS: dict[str, type[Rebuildable]] = {
    "sessions": SessionsProjection,
    "api_keys": ApiKeysProjection,
    "audit": AuditProjection,
}
"""Every read model that can be rebuilt, by the name that an operator calls it by."""

NAMED = 10
NEAR = 500  # events that are left for the append lock
LOCK_WAIT_MS = 100  # readers wait no longer behind a switch that waits for others
PATIENT_MS = 1_500  # an autovacuum gives way after PostgreSQL's deadlock_timeout of a second
SWITCH_TRIES = 300
PAUSE_S = 0.2


class RebuildRunning(Exception):
    """Another process rebuilds here."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the live tables stood against the fold of the same `events`. Of the rows that differ, the first are named."""

    events: int
    shapes: Sequence[str]
    differing: int
    rows: Sequence[Difference]

    @property
    def identical(self) -> bool:
        return not self.shapes and not self.differing


def rebuild(
    database: Database,
    make: type[Rebuildable],
    *,
    dry_run: bool = False,
    report: Report = lambda done, total: None,
) -> Comparison:
    """Compare a read model with the fold of the log, and put what was rebuilt in its place; a dry run only compares.

    Needs no key: personal data stays sealed. Raises `RebuildRunning` when another one runs, and `RebuildStopped` when
    an event cannot be folded: then nothing is changed.
    """
    with _only_one(database):
        rebuilding = _Rebuild(database, make)
        rebuilding.begin()
        comparison = rebuilding.compare(report)
        if dry_run:
            rebuilding.give_up()
        else:
            rebuilding.switch(report)
        return comparison


@contextmanager
def _only_one(database: Database) -> Iterator[None]:
    lead = leadership(database, "rebuild")
    if not lead.is_held():
        raise RebuildRunning("Another rebuild is running here.")
    try:
        yield
    finally:
        lead.release()


class _Rebuild:
    def __init__(self, database: Database, make: type[Rebuildable]) -> None:
        self._database = database
        self._live = make()
        self._shadow = Shadow(database, make(SUFFIX))
        fresh = self._shadow.projection.metadata.tables
        self._tables = [(table, fresh[f"{name}{SUFFIX}"]) for name, table in self._live.metadata.tables.items()]

    def begin(self) -> None:
        drop_replaced(self._database, [live for live, _ in self._tables])
        self._shadow.open(most=self._live_position())

    def compare(self, report: Report) -> Comparison:
        """Shape by shape and row by row, as both are at one position."""
        self._shadow.fold(self._live_position(), report)
        self._shadow.complete()
        with self._both_at_one_position(report) as connection:
            shapes = {pair: shape_difference(connection, *pair) for pair in self._tables}
            alike = [pair for pair in self._tables if not shapes[pair]]
            differing = sum(count_differing(connection, *pair) for pair in alike)
            rows = [row for pair in alike for row in differing_rows(connection, *pair, NAMED)] if differing else []
        return Comparison(self._shadow.position, [*filter(None, shapes.values())], differing, rows[:NAMED])

    @contextmanager
    def _both_at_one_position(self, report: Report) -> Iterator[Connection]:
        """A snapshot in which the shadow has come exactly as far as the live tables, which may move at any time."""
        while True:
            self._catch_up_with_live(report)
            with self._database.snapshot() as connection:
                if self._reached(connection) == self._shadow.position:
                    yield connection
                    return

    def _catch_up_with_live(self, report: Report) -> None:
        while (until := self._live_position()) - self._shadow.position > NEAR:
            self._shadow.fold(until, report)
        with self._database.transaction() as connection:
            reached = self._shadow.fold_within(connection, self._hold_live_position(connection))
        self._shadow.position = reached
        report(reached, reached)

    def switch(self, report: Report) -> None:
        """Let the two change places, in one transaction, once no reader is in the way; then drop what was replaced."""
        for tried in range(SWITCH_TRIES):
            self._shadow.fold(self._head(), report)
            try:
                self._try_to_switch(PATIENT_MS if tried > SWITCH_TRIES // 2 else LOCK_WAIT_MS)
            except OperationalError as error:
                if not isinstance(error.orig, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected):
                    raise
                time.sleep(PAUSE_S)
            else:
                drop_replaced(self._database, [live for live, _ in self._tables])
                return
        raise StoreUnavailable("The live tables are in use all the time; run it again, it goes on from here.")

    def give_up(self) -> None:
        """Leave nothing behind."""
        with self._database.transaction() as connection:
            self._shadow.drop(connection)

    def _try_to_switch(self, lock_wait_ms: int) -> None:
        """The append lock is held meanwhile, and the live position: whoever follows finds that it was moved."""
        with self._database.transaction() as connection:
            head = Append(connection).position
            self._hold_live_position(connection)
            self._shadow.fold_within(connection, head)
            self._lock_out_readers(connection, lock_wait_ms)
            for live, fresh in self._tables:
                put_in_place(connection, live.name, fresh.name)
            self._shadow.forget(connection)
            move_to(connection, self._live.name, head)
            resume(connection, self._live.name)

    def _lock_out_readers(self, connection: Connection, wait_ms: int) -> None:
        """All tables at once, and not for long: who wants to read queues behind whoever waits for this lock."""
        if not self._database.is_sqlite:
            present = inspect(connection).get_table_names()
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {wait_ms}")
            names = [live.name for live, _ in self._tables if live.name in present]
            if names:
                connection.exec_driver_sql(f"LOCK TABLE {', '.join(names)} IN ACCESS EXCLUSIVE MODE")

    def _hold_live_position(self, connection: Connection) -> int:
        """Where the live tables are; whoever moves them on waits until the transaction is over."""
        held = select(tracking.c.position).where(tracking.c.name == self._live.name).with_for_update()
        return connection.execute(held).scalar() or 0

    def _live_position(self) -> int:
        with self._database.reading() as connection:
            return self._reached(connection)

    def _reached(self, connection: Connection) -> int:
        """How far the live tables are, and no further than there are events: after a loss they may say more."""
        last = connection.execute(select(func.max(events.c.position))).scalar() or 0
        return min(tracked(connection, self._live.name) or 0, last)

    def _head(self) -> int:
        with self._database.reading() as connection:
            return int(connection.execute(select(log_head.c.position)).scalar_one())


def move_to(connection: Connection, name: str, position: int) -> None:
    """Let a tracking row say this, backwards too."""
    moved = update(tracking).where(tracking.c.name == name).values(position=position)
    if connection.execute(moved).rowcount == 0:
        connection.execute(tracking.insert().values(name=name, position=position))
