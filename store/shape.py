"""Whether the tables that evidence rests on, and what protects the log, are as this version makes them."""

import re
from collections.abc import Iterator

from sqlalchemy import Column, Dialect, PrimaryKeyConstraint, UniqueConstraint
from sqlalchemy.dialects import postgresql, sqlite

from store.raw_log import RawLog
from store.schema import POSTGRESQL_TRIGGERS, SQLITE_TRIGGERS, bindings, checkpoints, events, head, tiles

SHOWN = 100
"""Characters of a statement that are told."""

_SEARCH_PATH = re.compile(r"ALTER FUNCTION \w+\(\) SET search_path = %%I, pg_temp")


def differences(log: RawLog) -> Iterator[str]:
    """What is not. The rows themselves may be as they were."""
    dialect: Dialect = (sqlite if log.is_sqlite else postgresql).dialect()
    for table in (events, head, checkpoints, tiles, bindings):
        if found := log.columns(table.name):
            expected = [_described(column, column.type.compile(dialect)) for column in table.columns]
            columns = [f"{name} {kind}{' NOT NULL' * is_required}" for name, kind, is_required in found]
            for one in sorted({*columns} ^ {*expected}):
                yield f"the table {table.name} has {'' if one in columns else 'not '}the column {one}"
        else:
            yield f"the table {table.name} is missing"
    guards = {" ".join(statement.split()) for (statement,) in log.guards()}
    for guard in sorted(guards ^ {*_guards(log.is_sqlite)}):
        if guard in guards:
            yield f"what does not belong to the log stands around it: {guard[:SHOWN]!r}"
        else:
            yield f"what protects the log is missing, changed or disabled: {guard[:SHOWN]!r}"


def _guards(is_sqlite: bool) -> Iterator[str]:
    """What stands around a new log, in the words of the catalogue, which are those of the statements that made it."""
    for statement in SQLITE_TRIGGERS if is_sqlite else POSTGRESQL_TRIGGERS:
        if statement.startswith("CREATE "):
            yield " ".join(statement.split())
        else:
            yield from (found.replace("%%I", "its own") for found in _SEARCH_PATH.findall(statement))
    for table in (events, head):
        for key in table.constraints:
            if isinstance(key, PrimaryKeyConstraint | UniqueConstraint):
                kind = "PRIMARY KEY" if key is table.primary_key else "UNIQUE"
                yield f"{table.name}: {kind} ({', '.join(column.name for column in key.columns)})"


def _described(column: "Column[object]", kind: str) -> str:
    return f"{column.name} {kind}{' NOT NULL' * (not column.nullable)}"
