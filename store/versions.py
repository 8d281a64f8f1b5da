"""Whether the versions of each stream have no gap, in memory that does not grow with the number of streams.

What was seen of each stream is kept in memory for so many streams, then put aside in a file as a stretch: the first and
the last version of each. In the end the stretches are laid end to end, a part of the streams at a time.
"""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

STREAMS = 400_000
PARTS = 64

_ENTRY = struct.Struct("16sqqq")


class Stretch(NamedTuple):
    """Where the streams of a stretch of the log are put aside: a file, and where each part of it ends."""

    path: Path
    ends: tuple[int, ...]


class Gap(NamedTuple):
    """An event whose version does not follow the one before in its stream."""

    position: int
    version: int
    expected: int


class Versions:
    """Of the log's events in order. `first` and `last` are of the stretch at hand, for who has no time for a call."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory, self._name = directory, name
        self.first: dict[bytes, tuple[int, int]] = {}
        self.last: dict[bytes, int] = {}
        self.stretches: list[Stretch] = []

    def put_aside(self) -> None:
        """Begin a new stretch."""
        parts = [bytearray() for _ in range(PARTS)]
        for stream, last in self.last.items():
            parts[stream[-1] % PARTS] += _ENTRY.pack(stream, *self.first[stream], last)
        path = self._directory / f"{self._name}-{len(self.stretches)}"
        ends = [0]
        with path.open("wb") as file:
            for part in parts:
                file.write(part)
                ends.append(ends[-1] + len(part))
        self.stretches.append(Stretch(path, tuple(ends)))
        self.first, self.last = {}, {}


def gaps(stretches: Sequence[Stretch]) -> Iterator[Gap]:
    """Where a stretch does not go on where the ones before ended. They are given in the order of the log."""
    for part in range(PARTS):
        reached: dict[bytes, int] = {}
        for stretch in stretches:
            for stream, version, position, last in _ENTRY.iter_unpack(_part(stretch, part)):
                if version != reached.get(stream, 0) + 1:
                    yield Gap(position, version, reached.get(stream, 0) + 1)
                reached[stream] = last


def _part(stretch: Stretch, part: int) -> bytes:
    with stretch.path.open("rb") as file:
        file.seek(stretch.ends[part])
        return file.read(stretch.ends[part + 1] - stretch.ends[part])
