"""The tree as it is kept: the same hashes as the log's, whatever the steps in which it grew."""

from collections.abc import Iterator
from uuid import UUID

import pytest

from store import tree
from store.database import Database
from store.log import leaf, pages
from store.merkle import (
    check_consistency,
    check_inclusion,
    complete_root,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root,
)
from store.recorder import EventRecorder, Factory
from store.tree import Tree, TreeIncomplete, discard, grow
from tests.clock import ManualClock
from tests.postgres import Database as Place
from tests.store.given import at_once, stored, subtrees_of

SIZE = 1_100


@pytest.fixture
def recorder(database: Place, clock: ManualClock) -> Iterator[EventRecorder]:
    factory = Factory({"DATABASE_URL": database.url}, clock=clock)
    recorder = factory.application_recorder()
    recorder.insert_events([stored(UUID(int=1), version) for version in range(1, SIZE + 1)])
    yield recorder
    factory.close()


@pytest.fixture
def leaves(recorder: EventRecorder) -> list[bytes]:
    with recorder.database.reading() as connection:
        return [leaf_hash(leaf(record)) for page in pages(connection, 0, SIZE) for record in page]


def kept_root(database: Database, size: int) -> bytes:
    with database.reading() as connection:
        return root(Tree(connection).subtree, size)


@pytest.mark.parametrize("steps", [[SIZE], [1, 2, 255, 256, 257, 511, 512, 700, 1024, SIZE], range(0, SIZE + 1, 100)])
def test_it_holds_the_leaves_of_the_log(recorder: EventRecorder, leaves: list[bytes], steps, monkeypatch):
    monkeypatch.setattr(tree, "PAGE", 512)
    for until in steps:
        grow(recorder.database, until)
    for size in (1, 2, 255, 256, 257, 600, 1023, 1024, 1025, SIZE):
        assert kept_root(recorder.database, size) == root(subtrees_of(leaves), size)


def test_its_proofs_hold(recorder: EventRecorder, leaves: list[bytes]):
    grow(recorder.database, SIZE)
    reached = kept_root(recorder.database, SIZE)
    with recorder.database.reading() as connection:
        for index in (0, 255, 256, 700, 1024, SIZE - 1):
            proof = inclusion_proof(Tree(connection).subtree, index, SIZE)
            check_inclusion(leaves[index], index, SIZE, proof, reached)
        for first in (1, 255, 256, 700, 1024, SIZE):
            proof = consistency_proof(Tree(connection).subtree, first, SIZE)
            check_consistency(first, SIZE, proof, kept_root(recorder.database, first), reached)


def test_a_proof_reads_a_few_rows(recorder: EventRecorder, monkeypatch: pytest.MonkeyPatch):
    grow(recorder.database, SIZE)
    read: list[tuple[int, int]] = []
    read_tile = tree.read_tile
    monkeypatch.setattr(tree, "read_tile", lambda c, tier, n: read.append((tier, n)) or read_tile(c, tier, n))
    with recorder.database.reading() as connection:
        inclusion_proof(Tree(connection).subtree, 300, SIZE)
    assert sorted(read) == [(0, 1), (0, 4), (1, 0)]


def test_what_is_missing_is_told(recorder: EventRecorder):
    grow(recorder.database, 300)
    with pytest.raises(TreeIncomplete):
        kept_root(recorder.database, 301)
    with pytest.raises(TreeIncomplete, match="gap between 300 and 1101"):
        grow(recorder.database, SIZE + 1)
    discard(recorder.database)
    with pytest.raises(TreeIncomplete):
        kept_root(recorder.database, 1)


def test_two_that_grow_it_at_once_make_one_tree(recorder: EventRecorder, leaves: list[bytes], monkeypatch):
    monkeypatch.setattr(tree, "PAGE", 10)
    at_once(*[lambda: grow(recorder.database, SIZE)] * 3)
    assert kept_root(recorder.database, 1024) == complete_root(leaves[:1024])
    grow(recorder.database, SIZE)
