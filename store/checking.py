"""Checks the rows of the log one after another, and says what each is the leaf of."""

import hashlib
import reprlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from store.legible import Legible
from store.log import WRONGLY_TYPED, leaf_of
from store.merkle import HASH_BYTES
from store.raw_log import Row
from store.versions import STREAMS, Versions

NO_LEAF = bytes(HASH_BYTES)
MOST_FINDINGS = 1_000


class Finding(NamedTuple):
    """What is wrong, at the position where it begins."""

    position: int
    what: str


class Findings:
    """The first so many; the rest are counted."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.left_out = 0

    def add(self, position: int, what: str) -> None:
        if len(self.kept) < MOST_FINDINGS:
            self.kept.append(Finding(position, what))
        else:
            self.left_out += 1

    def take(self, other: "Findings") -> None:
        for finding in other.kept:
            self.add(*finding)
        self.left_out += other.left_out


class Checker:
    """Goes along the log. `expected` is the position that must come next; times are microseconds."""

    def __init__(self, after: int, recorded_at: int, legible: Legible, versions: Versions) -> None:
        """Begins behind the event at the position `after`, which was recorded at `recorded_at`."""
        self.expected = after + 1
        self.findings = Findings()
        self._recorded_at = recorded_at
        self._legible = legible
        self._versions = versions

    def check(self, rows: Iterable[Row]) -> list[bytes]:
        """The hash of each leaf from `expected` on; `NO_LEAF` for one that is missing or unreadable."""
        hashes: list[bytes] = []
        add, sha256, legible, findings = hashes.append, hashlib.sha256, self._legible, self.findings
        first, last = self._versions.first, self._versions.last
        expected, latest = self.expected, self._recorded_at
        for position, stream, version, recorded_at, topic, state in rows:
            if position != expected:
                if not self._leaps(expected, position, hashes):
                    continue
                expected = position
            expected += 1
            try:
                add(sha256(b"\x00" + leaf_of(position, stream, version, recorded_at, topic, state)).digest())
            except WRONGLY_TYPED:
                add(NO_LEAF)
                findings.add(expected - 1, "a column holds what no event has there")
                continue
            if recorded_at < latest:
                findings.add(position, "recorded before the event in front of it")
            latest = recorded_at
            known = last.get(stream)
            if known is None:
                first[stream] = version, position
            elif version != known + 1:
                findings.add(position, f"version {version} of its stream, where {known + 1} comes next")
            last[stream] = version
            if not legible(topic, state):
                findings.add(position, "the state cannot be read by its topic")
        self.expected, self._recorded_at = expected, latest
        if len(last) > STREAMS:
            self._versions.put_aside()
        return hashes

    def unreadable(self) -> list[bytes]:
        """Something stands at the expected position, but not what it is the leaf of."""
        self.expected += 1
        return [NO_LEAF]

    def ends(self, until: int) -> list[bytes]:
        """The log should go on up to here: what stands for the leaves that are missing."""
        hashes: list[bytes] = []
        if self.expected <= until:
            self._leaps(self.expected, until + 1, hashes)
            self.expected = until + 1
        return hashes

    def _leaps(self, expected: int, position: object, hashes: list[bytes]) -> bool:
        """Say what is wrong about a position that was not expected; whether it lies ahead."""
        if not isinstance(position, int):
            self.findings.add(expected, f"before it stands a row whose position is {short(position)}")
            return False
        if position < expected:
            self.findings.add(position, "stands there twice")
            return False
        missing = f"up to {position - 1} " if position - 1 > expected else ""
        self.findings.add(expected, f"{missing}missing")
        hashes.extend([NO_LEAF] * (position - expected))
        return True


def short(value: object) -> str:
    """What a column holds, whatever that is, fit to be shown."""
    return reprlib.repr(value)


def differing(hashes: Sequence[bytes], kept: bytes) -> list[int]:
    """At which places these hashes are not the ones that are kept, as far as such are kept."""
    if b"".join(hashes).startswith(kept) or kept == b"":
        return []
    pairs = zip(hashes, (kept[at : at + HASH_BYTES] for at in range(0, len(kept), HASH_BYTES)), strict=False)
    return [place for place, (found, stored) in enumerate(pairs) if found != stored]
