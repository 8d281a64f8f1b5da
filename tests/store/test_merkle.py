"""The Merkle tree: §2.7's vectors, and every size up to 65 against RFC 6962's own recursive definitions."""

from base64 import b64decode
from collections.abc import Callable

import pytest

from store.merkle import (
    EMPTY_ROOT,
    ProofRefused,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
)
from tests.store.given import subtrees_of

SIZES = range(1, 66)
LEAVES = [leaf_hash(b'{"n":%d}' % number) for number in range(max(SIZES))]
subtrees = subtrees_of(LEAVES)
ROOTS = [root(subtrees, size) for size in range(max(SIZES) + 1)]


def defined_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 §2.1."""
    if len(leaves) < 2:
        return leaves[0] if leaves else EMPTY_ROOT
    k = split(len(leaves))
    return node_hash(defined_root(leaves[:k]), defined_root(leaves[k:]))


def defined_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962 §2.1.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*defined_path(m, leaves[:k]), defined_root(leaves[k:])]
    return [*defined_path(m - k, leaves[k:]), defined_root(leaves[:k])]


def defined_subproof(m: int, leaves: list[bytes], known: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 6962 §2.1.2."""
    if m == len(leaves):
        return [] if known else [defined_root(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*defined_subproof(m, leaves[:k], known), defined_root(leaves[k:])]
    return [*defined_subproof(m - k, leaves[k:], False), defined_root(leaves[:k])]


def split(size: int) -> int:
    return max(1 << k for k in range(8) if 1 << k < size)


def test_the_vectors_of_the_standards_file():
    assert ROOTS[3] == b64decode("LP73YnWX4AtWSXV3Stco7yEHBnWfym1kE4xt/By/LNo=")
    assert ROOTS[2] == b64decode("O63IBTfwKeG7dygNyFIDzy7ZdI3I9XEjD8ulwybJEGg=")
    other, third = map(
        b64decode, ("+UBwq/0toL9ykC6xOoCOeU+VTZ4nRcaCoVj27Q1KwDY=", "PR3ndt8IbBrp9wSdK7DAR1rRQYX5h+Bk6NENyy20oyI=")
    )
    assert inclusion_proof(subtrees, 1, 3) == [other, third]
    assert consistency_proof(subtrees, 2, 3) == [third]


def test_an_empty_tree_has_the_hash_of_nothing():
    assert ROOTS[0].hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("size", SIZES)
def test_root_and_proofs_are_those_of_the_standard(size: int):
    leaves = LEAVES[:size]
    assert ROOTS[size] == defined_root(leaves)
    assert all(inclusion_proof(subtrees, index, size) == defined_path(index, leaves) for index in range(size))
    for first in range(1, size + 1):
        assert consistency_proof(subtrees, first, size) == defined_subproof(first, leaves)


@pytest.mark.parametrize("size", SIZES)
def test_each_leaf_is_shown_and_only_where_it_is(size: int):
    for index in range(size):
        proof = inclusion_proof(subtrees, index, size)
        check_inclusion(LEAVES[index], index, size, proof, ROOTS[size])
        refused(check_inclusion, bytes(32), index, size, proof, ROOTS[size])
        refused(check_inclusion, LEAVES[index], index, size, proof, bytes(32))
        refused(check_inclusion, LEAVES[index], index, size, [*proof, bytes(32)], ROOTS[size])
        for wrong in {-1, size, size + 1, *range(size)} - {index}:
            refused(check_inclusion, LEAVES[index], wrong, size, proof, ROOTS[size])
        for altered in alterations(proof):
            refused(check_inclusion, LEAVES[index], index, size, altered, ROOTS[size])


@pytest.mark.parametrize("second", SIZES)
def test_each_smaller_tree_is_shown_and_no_other(second: int):
    for first in range(1, second + 1):
        proof = consistency_proof(subtrees, first, second)
        check_consistency(first, second, proof, ROOTS[first], ROOTS[second])
        refused(check_consistency, first, second, proof, bytes(32), ROOTS[second])
        refused(check_consistency, first, second, proof, ROOTS[first], bytes(32))
        refused(check_consistency, first, second, [*proof, bytes(32)], ROOTS[first], ROOTS[second])
        refused(check_consistency, second + 1, second, proof, ROOTS[second + 1 if second < 65 else 0], ROOTS[second])
        for altered in alterations(proof):
            refused(check_consistency, first, second, altered, ROOTS[first], ROOTS[second])
        if first < second:
            refused(check_consistency, first, second, [], ROOTS[first], ROOTS[second])


def test_nothing_is_proved_from_an_empty_tree():
    refused(check_consistency, 0, 3, [], EMPTY_ROOT, ROOTS[3])
    refused(check_consistency, 0, 3, [ROOTS[3]], EMPTY_ROOT, ROOTS[3])
    refused(check_consistency, -1, 3, [ROOTS[3]], EMPTY_ROOT, ROOTS[3])
    check_consistency(0, 0, [], EMPTY_ROOT, EMPTY_ROOT)


@pytest.mark.parametrize(("first", "second"), [(0, 3), (4, 3), (-1, 3)])
def test_no_consistency_proof_is_made_for_sizes_that_have_none(first: int, second: int):
    with pytest.raises(ValueError, match="No tree"):
        consistency_proof(subtrees, first, second)


@pytest.mark.parametrize("index", [-1, 3, 4])
def test_no_inclusion_proof_is_made_for_a_leaf_that_is_not_there(index: int):
    with pytest.raises(ValueError, match="no leaf"):
        inclusion_proof(subtrees, index, 3)


def alterations(proof: list[bytes]) -> list[list[bytes]]:
    """The proof with one hash changed, with one left out, and in the reverse order."""
    changed = [[*proof[:at], bytes([each[0] ^ 1]) + each[1:], *proof[at + 1 :]] for at, each in enumerate(proof)]
    shorter = [[*proof[:at], *proof[at + 1 :]] for at in range(len(proof))]
    return [*changed, *shorter, *([proof[::-1]] if len(proof) > 1 else [])]


def refused(check: Callable[..., None], *arguments: object) -> None:
    with pytest.raises(ProofRefused):
        check(*arguments)
