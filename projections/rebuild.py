"""Folding the log anew, beside the live tables, and comparing the two (D11)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from eventsourcing.persistence import Mapper
from sqlalchemy import Connection, Table, inspect, select

from projections.sessions import SessionsProjection
from store.recorder import Entry, EventRecorder

PAGE = 1_000
SUFFIX = "_rebuilt"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The rebuilt tables against the live ones: how many events were folded, and the first rows that differ."""

    events: int
    differences: Sequence[str]

    @property
    def identical(self) -> bool:
        return not self.differences


def rebuild_sessions(recorder: EventRecorder, mapper: Mapper[Any]) -> Comparison:
    """Fold the log into fresh `sessions` and `users` tables, compare them with the live ones, and drop them.

    Needs no key: personal data stays sealed. The append lock is held while the two are compared.
    """
    rebuilt, live = SessionsProjection(SUFFIX), SessionsProjection()
    with recorder.database.transaction() as connection:
        rebuilt.metadata.drop_all(connection)
        rebuilt.create_tables(connection)
    position = _fold(recorder, mapper, rebuilt, 0)
    with recorder.appending() as append:
        position = _fold(recorder, mapper, rebuilt, position, append.connection)
        differences = [*_schema_differences(append.connection, live, rebuilt)]
        for table, fresh in zip(live.metadata.sorted_tables, rebuilt.metadata.sorted_tables, strict=True):
            differences += _row_differences(append.connection, table, fresh)
        rebuilt.metadata.drop_all(append.connection)
    return Comparison(position, differences)


def _fold(
    recorder: EventRecorder,
    mapper: Mapper[Any],
    projection: SessionsProjection,
    position: int,
    connection: Connection | None = None,
) -> int:
    """Apply what lies behind `position`, page by page; the position reached."""
    while page := recorder.select_notifications(position, PAGE, inclusive_of_start=False):
        entries = [Entry(n.id, 0, mapper.to_domain_event(n)) for n in page]
        if connection:
            projection.apply(connection, entries)
        else:
            with recorder.database.transaction() as own:
                projection.apply(own, entries)
        position = page[-1].id
    return position


def _schema_differences(connection: Connection, live: SessionsProjection, rebuilt: SessionsProjection) -> Iterator[str]:
    inspector = inspect(connection)
    for table, fresh in zip(live.metadata.sorted_tables, rebuilt.metadata.sorted_tables, strict=True):
        if _shape(inspector, table.name) != _shape(inspector, fresh.name, SUFFIX):
            yield f"{table.name}: the tables have different columns or indexes"


def _shape(inspector: Any, table: str, suffix: str = "") -> Any:
    columns = [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(table)]
    indexes = {
        index["name"].replace(suffix, ""): (index["column_names"], index["unique"], _condition(index))
        for index in inspector.get_indexes(table)
    }
    return columns, inspector.get_pk_constraint(table)["constrained_columns"], indexes


def _condition(index: Any) -> str | None:
    """The WHERE of a partial index."""
    options = index.get("dialect_options", {})
    return next((str(value) for name, value in options.items() if name.endswith("_where")), None)


def _row_differences(connection: Connection, live: Table, rebuilt: Table) -> Iterator[str]:
    """Rows by key, every column; at most a few are named."""
    mine, fresh = _rows(connection, live), _rows(connection, rebuilt)
    differing = [key for key in mine.keys() | fresh.keys() if mine.get(key) != fresh.get(key)]
    for key in sorted(differing, key=str)[:10]:
        yield f"{live.name} {key}: live {mine.get(key)}, rebuilt {fresh.get(key)}"


def _rows(connection: Connection, table: Table) -> dict[Any, Any]:
    key = next(iter(table.primary_key))
    return {row._mapping[key]: tuple(row) for row in connection.execute(select(table))}
