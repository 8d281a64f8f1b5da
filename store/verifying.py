"""Verifies the log: every event rehashed and read, every checkpoint checked, against the signer's memory too.

Nothing is trusted but the public key: no constraint, no trigger, no type, no kept hash.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from domain.errors import StoreUnavailable
from store.checking import Finding, Findings, short
from store.database import Database
from store.notes import NoteError, Verifier
from store.pieces import Piece, roots_of
from store.raw_log import Outline, RawLog, raw_log
from store.rehashing import rehash
from store.shape import differences
from store.signing import BINDING
from store.versions import gaps


class Signed(NamedTuple):
    """What the key has signed, and where that was found."""

    size: int
    root: bytes
    source: str


class Report(NamedTuple):
    """What came of it. `sealed` is the largest size that was signed; findings are in the order of their positions.

    `beside` is what is wrong with all that should protect and prove the events.
    """

    events: int
    sealed: int
    checkpoints: int
    findings: list[Finding]
    left_out: int
    beside: list[str]

    @property
    def is_intact(self) -> bool:
        """Whether each event is as it was, as far as can be said."""
        return not self.findings


def verify_log(
    database: Database,
    verifier: Verifier,
    known: Sequence[Signed],
    processes: int = 1,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """`known` is what is known to be signed apart from what the database says. Raises `StoreUnavailable`."""
    with raw_log(database) as log:
        changed = [*differences(log)]
    try:
        report = _verified(database, verifier, known, processes, told)
    except StoreUnavailable as error:
        raise StoreUnavailable("; ".join([str(error), *changed])) from error
    return report._replace(beside=changed + report.beside)


def _verified(
    database: Database, verifier: Verifier, known: Sequence[Signed], processes: int, told: Callable[[int, int], None]
) -> Report:
    findings = Findings()
    with raw_log(database) as log:
        signed = sorted([*known, *_published(log, verifier, findings)])
        outline = log.outline()  # after what was signed: the log may grow and be sealed meanwhile
        end = _end(outline, signed)
        _check_outline(outline, findings, log)
        unproven = [*_unproven(log, verifier, known, signed, outline.last)]
    with tempfile.TemporaryDirectory() as directory:
        sizes = sorted({each.size for each in signed if each.size <= end})
        pieces, rests = rehash(database, end, sizes, Path(directory), processes, lambda done: told(done, end))
        for rest in rests:
            findings.take(rest.findings)
        for gap in gaps([stretch for rest in rests for stretch in rest.stretches]):
            findings.add(gap.position, f"version {gap.version} of its stream, where {gap.expected} comes next")
    compare(outline.last, signed, pieces, findings)
    return report_of(outline.last, signed, findings, unproven)


def report_of(events: int, signed: Sequence[Signed], findings: Findings, beside: Sequence[str] = ()) -> Report:
    sizes = {each.size for each in signed} - {0}
    return Report(events, max(sizes, default=0), len(sizes), sorted(findings.kept), findings.left_out, [*beside])


# -- what the database says of itself


def _published(log: RawLog, verifier: Verifier, findings: Findings) -> Iterator[Signed]:
    """The checkpoints whose notes are right."""
    if not log.columns("checkpoints"):
        return
    for size, root, note, created_at in log.ask("SELECT size, root, note, created_at FROM checkpoints ORDER BY size"):
        position = size if isinstance(size, int) else 0
        try:
            checkpoint = verifier.open(note)
        except (NoteError, TypeError, AttributeError, ValueError) as error:
            findings.add(position, f"the note of its checkpoint is not to be believed: {error}")
            continue
        if (checkpoint.size, checkpoint.root) != (size, root) or not isinstance(created_at, int):
            findings.add(position, "the checkpoint says something else than its note")
        yield Signed(checkpoint.size, checkpoint.root, "a checkpoint")


def _end(outline: Outline, signed: Sequence[Signed]) -> int:
    """Where to stop: what stands behind all that should be there is told, and not walked to."""
    heads = [position for position, _ in outline.heads if isinstance(position, int)]
    due = max([0, *heads, *(each.size for each in signed)])
    return min(outline.last, due)


def _check_outline(outline: Outline, findings: Findings, log: RawLog) -> None:
    """Whether `head` is one row and agrees with the last event, and each event has a position."""
    last = outline.last
    for position, version, stream in log.strays(last):
        if isinstance(position, int):
            findings.add(position, "stands before the first position")
        else:
            what = f"version {short(version)} of the stream {short(stream)} stands nowhere: its position is"
            findings.add(0, f"{what} {short(position)}")
    recorded_at = log.ask("SELECT recorded_at FROM events WHERE position = ?", last)
    expected = (last, recorded_at[0][0] if recorded_at else 0)
    if outline.heads != [expected]:
        positions = [head[0] for head in outline.heads if isinstance(head[0], int)]
        begins = min([last, *positions]) + ({last, *positions} != {last})
        findings.add(begins, f"head says {_said(outline.heads)}, and the log ends with {_said([expected])}")


def _said(heads: Sequence[tuple[Any, Any]]) -> str:
    return " and ".join(f"position {short(position)} at {short(at)}" for position, at in heads) or "nothing"


def _unproven(
    log: RawLog, verifier: Verifier, known: Sequence[Signed], signed: Sequence[Signed], last: int
) -> Iterator[str]:
    """What should prove the events, and is not there or is another's. A log is bound to its key (decision 0005)."""
    bound = log.ask("SELECT value FROM bindings WHERE name = ?", BINDING) if log.columns("bindings") else []
    if bound != [(verifier.vkey.encode(),)] and last:
        said = f"{bound[0][0]!r:.120}" if bound else "no key"
        yield f"the log is bound to {said}, and is verified with {verifier.vkey}"
    if len(signed) == len(known) and any(each.size for each in known):
        yield "no checkpoint is kept that could be believed, and yet something was signed"
    if last and not signed:
        yield "nothing that was signed is known: a checkpoint that was kept elsewhere is needed"


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
