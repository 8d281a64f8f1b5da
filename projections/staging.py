"""Changes that a rebuild sets aside on PostgreSQL, to write each row once: with its last values, when all are known.

There each change of a row is a new version of it, with its log record and its entries in the indexes. What is set aside
goes into tables without any index but the key of new rows, so that a second one shows where it comes. They are saved
with the rebuild's position, and are gone once they are poured.
"""

from collections.abc import Iterator, Sequence

from sqlalchemy import BigInteger, Column, Connection, Identity, MetaData, Table, inspect

from store.bulk import Bulk, Kind, Row, insert_many

SORT_MEMORY = "64MB"  # of PostgreSQL; what is more goes to its disk
ORDER = "number"


class Staging:
    """Of the tables that are changed as well as added to; to all others is added at once.

    A column is changed by one kind of change, so kinds need no order among them, but for deletions: these are last.
    """

    def __init__(self, bulks: Sequence[Bulk]) -> None:
        self._metadata = MetaData()
        self._targets = {bulk.table: None for bulk in bulks if bulk.kind is not Kind.INSERT}
        self._tables = {bulk: self._table(bulk, n) for n, bulk in enumerate(bulks) if bulk.table in self._targets}
        self._adding = {bulk: insert_many(table, *_given(table)) for bulk, table in self._tables.items()}
        self._is_open = False

    def _table(self, bulk: Bulk, number: int) -> Table:
        is_new = bulk.kind is Kind.INSERT
        columns = [
            Column(c.name, c.type, nullable=c.nullable, primary_key=is_new and c.primary_key, autoincrement=False)
            for c in bulk.columns
        ]
        order = [] if is_new else [Column(ORDER, BigInteger, Identity())]
        return Table(f"{bulk.table.name}_{number}", self._metadata, *columns, *order)

    def create(self, connection: Connection) -> None:
        self._metadata.create_all(connection)

    def open(self, connection: Connection) -> None:
        """Go on as a rebuild was left: before what it had set aside was poured, or after."""
        present = inspect(connection).get_table_names()
        self._is_open = any(name in present for name in self._metadata.tables)

    def run(self, connection: Connection, bulk: Bulk, rows: Sequence[Row]) -> None:
        """Set the change aside, or make it where that is over."""
        ((self._is_open and self._adding.get(bulk)) or bulk).run(connection, rows)

    def pour(self, connection: Connection) -> None:
        """In the caller's transaction; from then on changes are made at once."""
        if self._is_open:
            connection.exec_driver_sql(f"SET LOCAL work_mem = '{SORT_MEMORY}'")
            for table in self._tables.values():
                connection.exec_driver_sql(f"ANALYZE {table.name}")
            for target in self._targets:
                connection.exec_driver_sql(self._pouring(target))
            self._metadata.drop_all(connection)
            self._is_open = False

    def _pouring(self, target: Table) -> str:
        """One statement: the new rows, each joined with the last change of each kind, but for the deleted."""
        values = {column.name: f"added.{column.name}" for column in target.c}
        joins, deleted = "", "true"
        for bulk, table in self._of(target):
            key = bulk.columns[-1].name
            if bulk.kind is Kind.INSERT:
                joins = f"{table.name} AS added{joins}"
            elif bulk.kind is Kind.DELETE:
                deleted += f" AND added.{key} NOT IN (SELECT {key} FROM {table.name})"
            else:
                last = f"SELECT DISTINCT ON ({key}) * FROM {table.name} ORDER BY {key}, {ORDER} DESC"
                joins += f" LEFT JOIN ({last}) AS {table.name} ON {table.name}.{key} = added.{key}"
                for column in bulk.columns[:-1]:
                    changed = f"{table.name}.{key} IS NOT NULL THEN {table.name}.{column.name}"
                    values[column.name] = f"CASE WHEN {changed} ELSE {values[column.name]} END"
        return f"INSERT INTO {target.name} SELECT {', '.join(values.values())} FROM {joins} WHERE {deleted}"

    def _of(self, target: Table) -> Iterator[tuple[Bulk, Table]]:
        return ((bulk, table) for bulk, table in self._tables.items() if bulk.table is target)


def _given(table: Table) -> Sequence[Column[object]]:
    return [column for column in table.c if column.name != ORDER]
