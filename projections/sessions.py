"""The `sessions` read model: its tables, and how facts change them; `projections/session_views.py` answers from it.

Its rows are written in the append transaction, so an answer is never stale.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
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
from store.bulk import Bulk, Row, delete_many, insert_many, update_many
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
            _Change({SessionsInvalidatedBefore.TOPIC}, insert_many(self.invalidations), _invalidated),
            _Change({UserErased.TOPIC}, delete_many(s.stream), _gone),
        )
        self.bulks: Sequence[Bulk] = [change.bulk for change in self._changes]

    def create_tables(self, connection: Connection) -> None:
        self.metadata.create_all(connection)

    def apply(self, connection: Connection, entries: Sequence[Entry]) -> None:
        for bulk, rows in self.changes(entries):
            bulk.run(connection, rows)

    def changes(self, entries: Sequence[Entry]) -> Iterator[tuple[Bulk, Sequence[Row]]]:
        """What these facts change, kind by kind: in this order kinds commute within a batch.

        What an erased user's rows held goes last: nothing of him follows.
        """
        by_topic: dict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            by_topic[entry.fact.TOPIC].append(entry)
        for change in self._changes:
            found = [entry for topic in change.topics & by_topic.keys() for entry in by_topic[topic]]
            if len(change.topics) > 1:
                found.sort(key=lambda entry: entry.position)
            if found:
                yield change.bulk, [change.row(*entry) for entry in found]


class _Change(NamedTuple):
    """What facts of these topics do: a row for each, and the statement that takes them."""

    topics: set[str]
    bulk: Bulk
    row: Callable[[int, int, Any], Row]


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
    Index(f"sessions{suffix}_history", table.c.stream, table.c.created_version)
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


def _new_user(_: int, __: int, fact: UserEnrolled) -> Row:
    return fact.originator_id, True, 0, None


def _new_session(_: int, __: int, fact: SessionCreated) -> Row:
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


def _used(_: int, __: int, fact: SessionTouched) -> Row:
    return micros(fact.timestamp), fact.session_id


def _ended(_: int, __: int, fact: SessionRevoked) -> Row:
    return micros(fact.ended_at), str(fact.reason), fact.actor, fact.session_id


def _disabled(_: int, __: int, fact: UserDisabled) -> Row:
    return fact.originator_version, micros(fact.timestamp), fact.originator_id


def _access(_: int, __: int, fact: UserDisabled | UserEnabled) -> Row:
    return isinstance(fact, UserEnabled), fact.originator_id


def _erased(_: int, __: int, fact: UserErased) -> Row:
    return fact.originator_id, micros(fact.timestamp)


def _invalidated(position: int, _: int, fact: SessionsInvalidatedBefore) -> Row:
    at = micros(fact.timestamp)
    return position, micros(fact.before), at, str(fact.reason), fact.event_id, fact.correlation_id


def _gone(_: int, __: int, fact: UserErased) -> Row:
    return (fact.originator_id,)
