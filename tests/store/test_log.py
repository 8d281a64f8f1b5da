"""A leaf says every column of a row of the log, each behind its length."""

from uuid import UUID

from store.log import Record, leaf

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
