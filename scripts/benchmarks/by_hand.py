"""The sessions read model folded by a script that somebody would write for this one purpose: what a rebuild is held to.

It knows the stored bytes and the table, and nothing else: no resuming, no progress, no comparison, no upcasters.
"""

import json
import sqlite3
import time
from base64 import b64decode
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from projections.sessions import SessionsProjection

PAGE = 10_000
SUFFIX = "_by_hand"


def events_a_second(path: Path) -> float:
    """Fold the whole log of a SQLite database into tables of its own, which are gone afterwards."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        started = time.perf_counter()
        count = fold(connection)
        seconds = time.perf_counter() - started
        for table in SessionsProjection(SUFFIX).metadata.tables:
            connection.execute(f"DROP TABLE {table}")
    return count / seconds


def _tables() -> list[str]:
    tables = SessionsProjection(SUFFIX).metadata.sorted_tables
    dialect: Any = sqlite.dialect()
    statements = [CreateTable(table) for table in tables] + [CreateIndex(i) for table in tables for i in table.indexes]
    return [str(statement.compile(dialect=dialect)) for statement in statements]


def fold(connection: sqlite3.Connection) -> int:
    """Make the tables and fill them; the number of events."""
    for statement in _tables():
        connection.execute(statement)
    position = 0
    query = "SELECT position, stream, version, topic, state FROM events WHERE position > ? ORDER BY position LIMIT ?"
    while page := connection.execute(query, (position, PAGE)).fetchall():
        _apply(connection, page)
        position = page[-1][0]
    return position


def _apply(connection: sqlite3.Connection, page: list[tuple[Any, ...]]) -> None:
    users, created, touched, ended = [], [], [], []
    for _, stream, version, topic, state in page:
        fact = json.loads(state)
        if topic == "SessionTouched":
            touched.append((fact["timestamp"], bytes.fromhex(fact["session_id"])))
        elif topic == "SessionCreated":
            created.append(_created(stream, version, fact))
        elif topic == "SessionRevoked":
            key = bytes.fromhex(fact["session_id"])
            ended.append((fact["ended_at"], fact["reason"], fact["actor"], key))
        elif topic == "UserEnrolled":
            users.append((stream,))
        else:
            raise NotImplementedError(topic)
    insert = f"INSERT INTO sessions{SUFFIX} VALUES ({', '.join('?' * 18)})"
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(f"INSERT INTO users{SUFFIX} VALUES (?, 1, 0, NULL)", users)
    connection.executemany(insert, created)
    connection.executemany(f"UPDATE sessions{SUFFIX} SET last_active_at = ? WHERE session_id = ?", touched)
    connection.executemany(
        f"UPDATE sessions{SUFFIX} SET ended_at = ?, end_reason = ?, ended_by = ? WHERE session_id = ?", ended
    )
    connection.execute("COMMIT")


def _created(stream: bytes, version: int, fact: dict[str, Any]) -> tuple[Any, ...]:
    client = fact.get("client")
    return (
        bytes.fromhex(fact["session_id"]),
        stream,
        b64decode(fact["token_hash"]),
        version,
        bytes.fromhex(fact["event_id"]),
        fact["timestamp"],
        fact["timestamp"],
        fact["idle_timeout"],
        fact["absolute_timeout"],
        fact["remember_me"],
        fact.get("idp_name"),
        fact.get("auth_time"),
        json.dumps(fact["amr"]),
        fact["device"],
        b64decode(client) if client else None,
        *(None, None, None),
    )
