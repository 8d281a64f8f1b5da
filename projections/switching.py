"""Tables that take the place of others under their names, with the names of indexes and constraints as they were."""

from collections.abc import Sequence

from sqlalchemy import Connection, Table, inspect

from store.database import Database

REPLACED = "_replaced"
DELETED_AT_ONCE = 5_000


def put_in_place(connection: Connection, table: str, substitute: str) -> None:
    """Let `substitute` be called `table`. The one that was called so is there until it is dropped."""
    if inspect(connection).has_table(table):
        _rename(connection, table, f"{table}{REPLACED}")
    _rename(connection, substitute, table)


def drop_replaced(database: Database, tables: Sequence[Table]) -> None:
    """Drop what was replaced, now or by a rebuild that was killed then.

    SQLite looks at each page of a table that it drops while it keeps every writer out: it is emptied in portions first.
    """
    for table in tables:
        with database.transaction() as connection:
            present = inspect(connection).has_table(f"{table.name}{REPLACED}")
        if present:
            _drop(database, f"{table.name}{REPLACED}")


def _drop(database: Database, table: str) -> None:
    while database.is_sqlite:
        with database.transaction() as connection:
            portion = f"SELECT rowid FROM {table} LIMIT {DELETED_AT_ONCE}"
            deleted = connection.exec_driver_sql(f"DELETE FROM {table} WHERE rowid IN ({portion})").rowcount
        if deleted < DELETED_AT_ONCE:
            break
    with database.transaction() as connection:
        connection.exec_driver_sql(f"DROP TABLE {table}")


def _rename(connection: Connection, table: str, new_name: str) -> None:
    connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO {new_name}")
    if connection.dialect.name == "sqlite":
        _rename_sqlite_indexes(connection, table, new_name)
    else:
        _rename_postgresql_indexes(connection, table, new_name)


def _rename_sqlite_indexes(connection: Connection, table: str, new_name: str) -> None:
    """SQLite has no statement for it, so their entries in the schema are edited.

    As https://www.sqlite.org/lang_altertable.html allows where the content on disk stays what it is.
    """
    schema = "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL AND tbl_name = ?"
    indexes = connection.exec_driver_sql(schema, (new_name,)).all()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    for name, sql in indexes:
        renamed = _renamed(name, table, new_name)
        connection.exec_driver_sql(
            "UPDATE sqlite_schema SET name = ?, sql = ? WHERE type = 'index' AND name = ?",
            (renamed, sql.replace(name, renamed, 1), name),
        )
    connection.exec_driver_sql("PRAGMA writable_schema = RESET")


def _rename_postgresql_indexes(connection: Connection, table: str, new_name: str) -> None:
    """And the constraints that are no indexes: PostgreSQL 18 has one for each column that is not null."""
    indexes = "SELECT relname FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indrelid = %s::regclass"
    for name in connection.exec_driver_sql(indexes, (new_name,)).scalars().all():
        connection.exec_driver_sql(f"ALTER INDEX {name} RENAME TO {_renamed(name, table, new_name)}")
    constraints = "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND conindid = 0"
    for name in connection.exec_driver_sql(constraints, (new_name,)).scalars().all():
        renamed = _renamed(name, table, new_name)
        connection.exec_driver_sql(f"ALTER TABLE {new_name} RENAME CONSTRAINT {name} TO {renamed}")


def _renamed(name: str, table: str, new_name: str) -> str:
    """Names are made of the table's; one that is not is kept apart all the same."""
    return f"{new_name}_{name.removeprefix(table).removeprefix('_')}"
