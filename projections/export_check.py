"""Verifies an export offline: with the public key and notes that were kept, and nothing of the service (TEV-05)."""

import tempfile
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic_core import from_json, to_json

from projections.cloud_events import CloudEvents, Unreadable
from store.checking import Checker, Findings
from store.legible import Legible
from store.log import Record, record_of
from store.pieces import BEFORE_ALL, PIECE, Piece, piece_of
from store.sealing import NoKeys, SealingMapper
from store.stored_rows import StoredRow
from store.verifying import Report, Signed, compare, report_of
from store.versions import Versions, gaps


class PartOnly(Exception):
    """The export has not every event from the log's first one on, and says so."""


def verify_export(lines: Iterable[bytes], source: str, signed: Sequence[Signed]) -> Report:
    """What is wrong with an NDJSON export of the whole log `source`. Raises `PartOnly`. Memory stays flat."""
    signed = sorted(signed)
    with tempfile.TemporaryDirectory() as directory:
        versions = Versions(Path(directory), "export")
        checker = Checker(0, BEFORE_ALL, Legible(SealingMapper(NoKeys())), versions)
        pieces = list(_pieces(_hashes(lines, CloudEvents(source), checker), [each.size for each in signed]))
        versions.put_aside()
        findings = checker.findings
        for gap in gaps(versions.stretches):
            findings.add(gap.position, f"version {gap.version} of its stream, where {gap.expected} comes next")
    last = checker.expected - 1
    compare(last, signed, pieces, findings)
    return report_of(last, signed, findings)


def _hashes(lines: Iterable[bytes], tell: CloudEvents, checker: Checker) -> Iterator[bytes]:
    """The hash of each leaf."""
    for number, line in enumerate(lines):
        record = _record(line, tell, checker.expected, checker.findings)
        if record is None:
            yield from checker.unreadable()
            continue
        if number == 0:
            _refuse_part(record, line)
        if record.position > checker.expected + PIECE:
            checker.findings.add(checker.expected, f"up to {record.position - 1} missing; nothing further was read")
            return
        yield from checker.check([_row(record)])


def _refuse_part(record: Record, line: bytes) -> None:
    """By the first line; one further on that calls itself a part differs from its leaf."""
    if asked := from_json(line).get("selection"):
        raise PartOnly(f"The export is a selection ({asked!r}); only a whole one can be verified.")
    if record.position != 1:
        raise PartOnly(f"The export begins at position {record.position}; only a whole one can be verified.")


def _record(line: bytes, tell: CloudEvents, expected: int, findings: Findings) -> Record | None:
    """What the leaf of a line says, which the rest of the line must say too, byte for byte as an export does."""
    try:
        told = from_json(line)
        record = record_of(a2b_base64(told["leaf"], strict_mode=True))
    except (ValueError, KeyError, TypeError, Base64Error) as error:
        findings.add(expected, f"the line has no leaf that can be read: {error}")
        return None
    try:
        again = tell([_row(record)])
    except Unreadable as error:
        findings.add(record.position, str(error))
        return record
    if again != line:
        members = ", ".join(_differing(from_json(again), told)) or "it is written in another way"
        findings.add(record.position, f"the line says something else than its leaf: {members}")
    return record


def _differing(expected: dict[str, object], told: dict[str, object]) -> list[str]:
    """The members that are not as the leaf has them. Their text is compared, as False is 0 and a null is nothing."""
    names = sorted(expected.keys() | told.keys())
    return [name for name in names if to_json(expected.get(name, "")) != to_json(told.get(name, ""))]


def _row(record: Record) -> StoredRow:
    return record.position, record.stream.bytes, record.version, record.recorded_at, record.topic, record.state


def _pieces(hashes: Iterable[bytes], sizes: Sequence[int]) -> Iterator[Piece]:
    """Of a whole number of leaves each, but for the last one."""
    held: list[bytes] = []
    number = 0
    for each in hashes:
        held.append(each)
        if len(held) == PIECE:
            yield piece_of(number, held, sizes, [])
            number, held = number + 1, []
    if held:
        yield piece_of(number, held, sizes, [])
