"""Verifies the log: every event rehashed and read, every checkpoint checked, against the signer's memory too.

Nothing is trusted but the public key: no constraint, no trigger, no type, no kept hash.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from store.checking import Finding, Findings
from store.database import Database
from store.notes import NoteError, Verifier
from store.pieces import Piece, roots_of
from store.raw_log import Outline, RawLog, raw_log
from store.rehashing import rehash
from store.versions import gaps


class Signed(NamedTuple):
    """What the key has signed, and where that was found."""

    size: int
    root: bytes
    source: str


class Report(NamedTuple):
    """What came of it. `sealed` is the largest size that was signed; findings are in the order of their positions."""

    events: int
    sealed: int
    checkpoints: int
    findings: list[Finding]
    left_out: int

    @property
    def is_intact(self) -> bool:
        return not self.findings


def verify_log(
    database: Database,
    verifier: Verifier,
    known: Sequence[Signed],
    processes: int = 1,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """`known` is what is known to be signed apart from what the database says. Raises `StoreUnavailable`."""
    findings = Findings()
    with raw_log(database) as log:
        signed = sorted([*known, *_published(log, verifier, findings)])
        outline = log.outline()  # after what was signed: the log may grow and be sealed meanwhile
        end = _end(outline, signed)
        _check_outline(outline, findings, log)
    with tempfile.TemporaryDirectory() as directory:
        sizes = sorted({each.size for each in signed if each.size <= end})
        pieces, rests = rehash(database, end, sizes, Path(directory), processes, lambda done: told(done, end))
        for rest in rests:
            findings.take(rest.findings)
        for gap in gaps([stretch for rest in rests for stretch in rest.stretches]):
            findings.add(gap.position, f"version {gap.version} of its stream, where {gap.expected} comes next")
    compare(outline.last or 0, signed, pieces, findings)
    return report_of(outline.last or 0, signed, findings)


def report_of(events: int, signed: Sequence[Signed], findings: Findings) -> Report:
    sealed = max((each.size for each in signed), default=0)
    return Report(events, sealed, len({each.size for each in signed} - {0}), sorted(findings.kept), findings.left_out)


# -- what the database says of itself


def _published(log: RawLog, verifier: Verifier, findings: Findings) -> Iterator[Signed]:
    """The checkpoints whose notes are right."""
    for size, root, note, created_at in log.ask("SELECT size, root, note, created_at FROM checkpoints ORDER BY size"):
        position = size if isinstance(size, int) else 0
        try:
            checkpoint = verifier.open(note)
        except (NoteError, TypeError, AttributeError) as error:
            findings.add(position, f"the note of its checkpoint is not to be believed: {error}")
            continue
        if (checkpoint.size, checkpoint.root) != (size, root) or not isinstance(created_at, int):
            findings.add(position, "the checkpoint says something else than its note")
        yield Signed(checkpoint.size, checkpoint.root, "a checkpoint")


def _end(outline: Outline, signed: Sequence[Signed]) -> int:
    """Where to stop: what stands behind all that should be there is told, and not walked to."""
    heads = [position for position, _ in outline.heads if isinstance(position, int)]
    due = max([0, *heads, *(each.size for each in signed)])
    return min(outline.last or 0, due)


def _check_outline(outline: Outline, findings: Findings, log: RawLog) -> None:
    """Whether `head` is one row and agrees with the last event, and nothing stands before the first position."""
    last = outline.last or 0
    if outline.first is not None and outline.first < 1:
        findings.add(outline.first, "stands before the first position")
    recorded_at = log.ask("SELECT recorded_at FROM events WHERE position = ?", last)
    expected = (last, recorded_at[0][0] if recorded_at else 0)
    if outline.heads != [expected]:
        positions = [head[0] for head in outline.heads if isinstance(head[0], int)]
        begins = min([last, *positions]) + ({last, *positions} != {last})
        findings.add(begins, f"head says {_said(outline.heads)}, and the log ends with {_said([expected])}")


def _said(heads: Sequence[tuple[Any, Any]]) -> str:
    return " and ".join(f"position {position!r} at {at!r}" for position, at in heads) or "nothing"


# -- what was signed, and what is there


def compare(last: int, signed: Sequence[Signed], pieces: Sequence[Piece], findings: Findings) -> None:
    """Whether the log, which ends at `last`, comes at each size to the root that was signed."""
    roots = roots_of(pieces)
    for each in signed:
        if each.size > last:
            findings.add(last + 1, f"missing: {each.source} was signed at {each.size}")
    there = [each for each in signed if 0 < each.size <= last]
    proven = max((each.size for each in there if roots.get(each.size) == each.root), default=0)
    broken = [each for each in there if roots.get(each.size) != each.root]
    for each in broken:
        if each.size < proven:
            findings.add(each.size, f"{each.source} contradicts what was signed later")
    differing = [position for piece in pieces for position in piece.differing]
    for position in differing:
        findings.add(position, _why_differing(position, proven, broken))
    first_broken = next((each for each in broken if each.size > proven), None)
    if first_broken and not any(proven < found.position <= first_broken.size for found in findings.kept):
        findings.add(proven + 1, f"one of the events from here to {first_broken.size} is not the one that was signed")


def _why_differing(position: int, proven: int, broken: Sequence[Signed]) -> str:
    if position <= proven:
        return "the event is as it was signed, but its kept hash is another one: the tiles were altered"
    if any(position <= each.size for each in broken):
        return "not the event that was sealed"
    return "not the event whose hash is kept"
