"""A leaf says every column of a row of the log, each behind its length."""

from uuid import UUID

import pytest
from eventsourcing.persistence import DataError

from api.service import Service
from store.log import LARGEST_LEAF, Record, leaf, leaf_size
from tests.store.given import stored, whole

RECORD = Record(3, UUID(int=7), 2, 1_795_000_000_000_000, "SessionTouched", b'{"actor":"self"}')


def test_a_leaf_is_each_column_behind_its_length():
    assert leaf(RECORD) == (
        b"\0\0\0\x08" + (3).to_bytes(8, "big")
        + b"\0\0\0\x10" + UUID(int=7).bytes
        + b"\0\0\0\x08" + (2).to_bytes(8, "big")
        + b"\0\0\0\x08" + (1_795_000_000_000_000).to_bytes(8, "big")
        + b"\0\0\0\x0eSessionTouched"
        + b'\0\0\0\x10{"actor":"self"}'
    )  # fmt: skip


def test_what_moves_from_one_column_to_the_next_changes_the_leaf():
    moved = RECORD._replace(topic=RECORD.topic + "{", state=RECORD.state[1:])
    assert leaf(moved) != leaf(RECORD)


def test_the_size_of_a_leaf_is_known_before_its_place():
    assert leaf_size(RECORD.topic, RECORD.state) == len(leaf(RECORD))
    assert leaf_size("Größe", b"12") == len(leaf(RECORD._replace(topic="Größe", state=b"12")))


def test_an_event_is_as_large_as_a_leaf_may_be_and_no_larger(service: Service):
    room = LARGEST_LEAF - leaf_size("Told", b"")
    service.recorder.insert_events([stored(UUID(int=7), 1, b"x" * room)])
    before = whole(service.database)
    assert len(leaf(Record(1, UUID(int=7), 1, 0, "Told", before[0][0].state))) == 65_535
    with pytest.raises(DataError, match=r"65536 bytes is not recorded: 65535 is the most"):
        service.recorder.insert_events([stored(UUID(int=7), 2), stored(UUID(int=7), 3, b"x" * (room + 1))])
    assert whole(service.database) == before
