"""Whether the tables that evidence rests on, and what protects the log, are as this version makes them."""

import re
from collections.abc import Iterator

from sqlalchemy import Column, Dialect
from sqlalchemy.dialects import postgresql, sqlite

from store.raw_log import RawLog
from store.schema import POSTGRESQL_TRIGGERS, SQLITE_TRIGGERS, bindings, checkpoints, events, head, tiles

_NAME = re.compile(r"CREATE TRIGGER (\w+)")


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
    at_work = log.triggers()
    for name in _NAME.findall("\n".join(SQLITE_TRIGGERS if log.is_sqlite else POSTGRESQL_TRIGGERS)):
        if name not in at_work:
            yield f"the trigger {name}, which protects the log, is missing or disabled"


def _described(column: "Column[object]", kind: str) -> str:
    return f"{column.name} {kind}{' NOT NULL' * (not column.nullable)}"
