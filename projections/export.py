"""The log, or what an auditor asks for of it, on its way out: page by page in flat memory, to be gone on with later."""

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from pydantic_core import to_json

from projections.audit_filter import AuditFilter
from projections.cloud_events import CloudEvents
from projections.csv_rows import CsvRows, header
from projections.export_processes import in_processes
from store.database import Database, store_errors
from store.log import PAGE, last_position, position_at
from store.stored_rows import StoredRow, next_page

FEW = 20 * PAGE
"""Events that are told before other processes would have begun."""


class Format(StrEnum):
    """`ndjson`: CloudEvents with the leaf bytes, which can be verified. `csv`: for reading."""

    NDJSON = "ndjson"
    CSV = "csv"


class Chunk(NamedTuple):
    """Some lines, how many events they are, and the position that an export goes on behind."""

    lines: bytes
    events: int
    position: int


def export(
    database: Database, asked: AuditFilter, form: Format, source: str, after: int = 0, processes: int = 1
) -> Iterator[Chunk]:
    """What fits behind `after`, up to what is the log's end now. Raises `Unreadable` and `StoreUnavailable`.

    No connection is held between two chunks, however slowly they are taken. A long log is told by so many processes.
    """
    tell = _teller(asked, CloudEvents(source, asked.selection()) if form is Format.NDJSON else CsvRows())
    if form is Format.CSV and after == 0:
        yield Chunk(header(), 0, 0)
    with store_errors(), database.reading() as connection:
        after = max(after, position_at(connection, asked.start - 1) if asked.start is not None else 0)
        end = position_at(connection, asked.end) if asked.end is not None else last_position(connection)
    if processes > 1 and asked.stream is None and end - after > FEW:
        starts = range(after, end, PAGE)
        yield from in_processes(
            database, starts, processes, lambda start: tell(_read(database, start, min(start + PAGE, end)))
        )
    else:
        yield from map(tell, _pages(database, asked, after, end))
    yield Chunk(b"", 0, max(after, end))


def _teller(asked: AuditFilter, lines: Callable[[list[StoredRow]], bytes]) -> Callable[[list[StoredRow]], Chunk]:
    fits = _test(asked)

    def tell(page: list[StoredRow]) -> Chunk:
        chosen = page if fits is None else [row for row in page if fits(row)]
        return Chunk(lines(chosen), len(chosen), page[-1][0] if page else 0)

    return tell


def _pages(database: Database, asked: AuditFilter, after: int, end: int) -> Iterator[list[StoredRow]]:
    version = 0
    while after < end:
        page = _read(database, after, end, asked.stream, version)
        if page:
            yield page
            after, _, version, *_ = page[-1]
        if len(page) < PAGE:
            return


def _read(database: Database, after: int, end: int, stream: UUID | None = None, version: int = 0) -> list[StoredRow]:
    with store_errors(), database.reading() as connection:
        return next_page(connection, after, end, stream, version)


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
