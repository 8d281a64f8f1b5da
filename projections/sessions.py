"""The `sessions` read model: its tables, and how facts change them; `projections/session_views.py` answers from it.

Its rows are written in the append transaction, so an answer is never stale.
"""

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    delete,
)

from domain.events import (
    SessionCreated,
    SessionRevoked,
    SessionsInvalidatedBefore,
    SessionTouched,
    UserDisabled,
    UserEnabled,
    UserEnrolled,
    UserErased,
)
from store.bulk import Bulk, insert_many, update_many
from store.plain import micros, octets, sealed
from store.recorder import Entry
from store.schema import Id, Micros, Position


class SessionsProjection:
    """Folds the log into `sessions`, `users`, `erasures` and `invalidations`.

    A rebuild folds into tables of its own, named with a `suffix`.
    """

    name = "sessions.1"

    def __init__(self, suffix: str = "") -> None:
        self.metadata = MetaData()
        self.sessions = _sessions_table(self.metadata, suffix)
        self.users = _users_table(self.metadata, suffix)
        self.erasures = _erasures_table(self.metadata, suffix)
        self.invalidations = _invalidations_table(self.metadata, suffix)
        s, u = self.sessions.c, self.users.c
        self._changes = (
            _Change({UserEnrolled.TOPIC}, insert_many(self.users), _new_user),
            _Change({SessionCreated.TOPIC}, insert_many(self.sessions), _new_session),
            _Change({SessionTouched.TOPIC}, update_many(s.session_id, s.last_active_at), _used),
            _Change({SessionRevoked.TOPIC}, update_many(s.session_id, s.ended_at, s.end_reason, s.ended_by), _ended),
            _Change({UserDisabled.TOPIC}, update_many(u.stream, u.disabled_version, u.disabled_at), _disabled),
            _Change({UserDisabled.TOPIC, UserEnabled.TOPIC}, update_many(u.stream, u.enabled), _access),
            _Change({UserErased.TOPIC}, insert_many(self.erasures), _erased),
        )
        self._changed_by: dict[str, list[int]] = {}
        for number, change in enumerate(self._changes):
            for topic in change.topics:
                self._changed_by.setdefault(topic, []).append(number)
        self._add_invalidations = insert_many(self.invalidations)

    def create_tables(self, connection: Connection) -> None:
        self.metadata.create_all(connection)

    def apply(self, connection: Connection, entries: Sequence[Entry]) -> None:
        """Change the rows that these facts change, kind by kind: in this order kinds commute within a batch.

        What an erased user's rows held goes last: nothing of him follows.
        """
        facts = [entry.fact for entry in entries]
        rows: list[list[tuple[Any, ...]]] = [[] for _ in self._changes]
        for fact in facts:
            for number in self._changed_by.get(fact.TOPIC, ()):
                rows[number].append(self._changes[number].row(fact))
        for change, its_rows in zip(self._changes, rows, strict=True):
            change.bulk.run(connection, its_rows)
        invalidations = [entry for entry in entries if isinstance(entry.fact, SessionsInvalidatedBefore)]
        self._add_invalidations.run(connection, [_invalidated(*entry) for entry in invalidations])
        if erased := [fact.originator_id for fact in facts if isinstance(fact, UserErased)]:
            connection.execute(delete(self.sessions).where(self.sessions.c.stream.in_(erased)))


class _Change(NamedTuple):
    """What facts of these topics do: a row for each, and the statement that takes them."""

    topics: set[str]
    bulk: Bulk
    row: Callable[[Any], tuple[Any, ...]]


def _sessions_table(metadata: MetaData, suffix: str) -> Table:
    table = Table(
        f"sessions{suffix}",
        metadata,
        Column("session_id", Id, primary_key=True),
        Column("stream", Id, nullable=False),
        Column("token_hash", LargeBinary, nullable=False),
        Column("created_version", Integer, nullable=False),
        Column("created_event", Id, nullable=False),
        Column("created_at", Micros, nullable=False),
        Column("last_active_at", Micros, nullable=False),
        Column("idle_timeout", Integer, nullable=False),
        Column("absolute_timeout", Integer, nullable=False),
        Column("remember_me", Boolean, nullable=False),
        Column("idp_name", Text),
        Column("auth_time", Micros),
        Column("amr", Text, nullable=False),
        Column("device", Text, nullable=False),
        Column("client", LargeBinary),
        Column("ended_at", Micros),
        Column("end_reason", Text),
        Column("ended_by", Text),
        postgresql_with={"fillfactor": 70},  # room on each page for the next version of a row that is touched
    )
    Index(f"sessions{suffix}_token", table.c.token_hash, unique=True)
    Index(f"sessions{suffix}_history", table.c.stream, table.c.created_version, info={"used_by_fold": True})
    live = table.c.ended_at.is_(None)
    Index(f"sessions{suffix}_live", table.c.stream, sqlite_where=live, postgresql_where=live)
    return table


def _users_table(metadata: MetaData, suffix: str) -> Table:
    return Table(
        f"users{suffix}",
        metadata,
        Column("stream", Id, primary_key=True),
        Column("enabled", Boolean, nullable=False),
        Column("disabled_version", Integer, nullable=False),
        Column("disabled_at", Micros),
    )


def _erasures_table(metadata: MetaData, suffix: str) -> Table:
    """Who was erased. His row of `users` stays, and says nothing about him; his sessions go."""
    return Table(
        f"erasures{suffix}",
        metadata,
        Column("stream", Id, primary_key=True),
        Column("erased_at", Micros, nullable=False),
    )


def _invalidations_table(metadata: MetaData, suffix: str) -> Table:
    """When everybody was signed out at once. Few rows, and every check looks at them."""
    return Table(
        f"invalidations{suffix}",
        metadata,
        Column("position", Position, primary_key=True, autoincrement=False),
        Column("created_before", Micros, nullable=False),
        Column("invalidated_at", Micros, nullable=False),
        Column("reason", Text, nullable=False),
        Column("event_id", Id, nullable=False),
        Column("correlation_id", Id, nullable=False),
    )


def _new_user(fact: UserEnrolled) -> tuple[Any, ...]:
    return fact.originator_id, True, 0, None


def _new_session(fact: SessionCreated) -> tuple[Any, ...]:
    """In the order of the table's columns; it has not ended."""
    created_at = micros(fact.timestamp)
    return (
        fact.session_id,
        fact.originator_id,
        octets(fact.token_hash),
        fact.originator_version,
        fact.event_id,
        created_at,
        created_at,
        fact.idle_timeout,
        fact.absolute_timeout,
        fact.remember_me,
        fact.idp_name,
        None if fact.auth_time is None else micros(fact.auth_time),
        _amr_text(tuple(fact.amr)),
        fact.device,
        sealed(fact.client),
        *(None, None, None),
    )


_amr_text = lru_cache(json.dumps)


def _used(fact: SessionTouched) -> tuple[Any, ...]:
    return micros(fact.timestamp), fact.session_id


def _ended(fact: SessionRevoked) -> tuple[Any, ...]:
    return micros(fact.ended_at), str(fact.reason), fact.actor, fact.session_id


def _disabled(fact: UserDisabled) -> tuple[Any, ...]:
    return fact.originator_version, micros(fact.timestamp), fact.originator_id


def _access(fact: UserDisabled | UserEnabled) -> tuple[Any, ...]:
    return isinstance(fact, UserEnabled), fact.originator_id


def _erased(fact: UserErased) -> tuple[Any, ...]:
    return fact.originator_id, micros(fact.timestamp)


def _invalidated(position: int, _: int, fact: SessionsInvalidatedBefore) -> tuple[Any, ...]:
    at = micros(fact.timestamp)
    return position, micros(fact.before), at, str(fact.reason), fact.event_id, fact.correlation_id
