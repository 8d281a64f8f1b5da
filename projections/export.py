"""The log, or what an auditor asks for of it, on its way out: page by page in flat memory, to be gone on with later."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import NamedTuple

from pydantic_core import to_json

from projections.audit_filter import AuditFilter
from projections.cloud_events import CloudEvents
from projections.csv_rows import CsvRows, header
from store.database import Database, store_errors
from store.log import PAGE, last_position, position_at
from store.stored_rows import StoredRow, next_page


class Format(StrEnum):
    """`ndjson`: CloudEvents with the leaf bytes, which can be verified. `csv`: for reading."""

    NDJSON = "ndjson"
    CSV = "csv"


class Chunk(NamedTuple):
    """Some lines, how many events they are, and the position that an export goes on behind."""

    lines: bytes
    events: int
    position: int


def export(database: Database, asked: AuditFilter, form: Format, source: str, after: int = 0) -> Iterator[Chunk]:
    """What fits behind `after`, up to what is the log's end now. Raises `Unreadable` and `StoreUnavailable`.

    No connection is held between two chunks, however slowly they are taken.
    """
    lines: Callable[[list[StoredRow]], bytes] = (
        CloudEvents(source, asked.selection()) if form is Format.NDJSON else CsvRows()
    )
    if form is Format.CSV and after == 0:
        yield Chunk(header(), 0, 0)
    fits = _test(asked)
    with store_errors(), database.reading() as connection:
        after = max(after, position_at(connection, asked.start - 1) if asked.start is not None else 0)
        end = position_at(connection, asked.end) if asked.end is not None else last_position(connection)
    pages = _pages(database, asked, after, end)
    for page in pages if database.is_sqlite else _ahead(pages):
        chosen = page if fits is None else [row for row in page if fits(row)]
        yield Chunk(lines(chosen), len(chosen), page[-1][0])
    yield Chunk(b"", 0, max(after, end))


def _ahead(pages: Iterator[list[StoredRow]]) -> Iterator[list[StoredRow]]:
    """The same; while one page is being told, a server looks for the next one."""
    reader = ThreadPoolExecutor(1, thread_name_prefix="ledger-export")
    try:
        coming = reader.submit(next, pages, None)
        while page := coming.result():
            coming = reader.submit(next, pages, None)
            yield page
    finally:
        reader.shutdown(wait=False)


def _pages(database: Database, asked: AuditFilter, after: int, end: int) -> Iterator[list[StoredRow]]:
    version = 0
    while after < end:
        with store_errors(), database.reading() as connection:
            page = next_page(connection, after, end, asked.stream, version)
        if page:
            yield page
            after, _, version, *_ = page[-1]
        if len(page) < PAGE:
            return


def _test(asked: AuditFilter) -> Callable[[StoredRow], bool] | None:
    """Looks at what is stored, unread: no text within a JSON string can look like a member. None: everything fits."""
    members = []
    if asked.session_id:
        members.append(b'"session_id":"%s"' % asked.session_id.hex.encode())
    if asked.actor is not None:
        members.append(b'"actor":%s' % to_json(asked.actor))
    if not members and asked.event_type is None:
        return None
    return lambda row: asked.event_type in (None, row[4]) and all(member in row[5] for member in members)
