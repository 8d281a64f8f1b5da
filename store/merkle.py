"""The Merkle tree of RFC 6962 §2.1: what stands for a whole log, and short proofs about it.

A tree is known by its complete subtrees: the one at (level, number) covers the 2^level leaves from number × 2^level on.
Whoever makes a proof brings a way to look those up; whoever checks one needs nothing but two roots.
"""

import hashlib
from collections.abc import Callable, Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

Subtrees = Callable[[int, int], bytes]
"""The hash of the complete subtree at (level, number)."""


class ProofRefused(Exception):
    """The proof does not show what it was brought for."""


def leaf_hash(leaf: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def complete_root(hashes: Sequence[bytes]) -> bytes:
    """The root over a power of two of hashes of one level."""
    while len(hashes) > 1:
        hashes = [node_hash(left, right) for left, right in zip(hashes[::2], hashes[1::2], strict=True)]
    return hashes[0]


class Leaves:
    """A tree in memory, of these hashes of leaves."""

    def __init__(self, hashes: Sequence[bytes]) -> None:
        self._levels = [hashes]
        sha256 = hashlib.sha256
        while len(hashes) > 1:
            pairs = zip(hashes[::2], hashes[1::2], strict=False)
            hashes = [sha256(b"\x01" + left + right).digest() for left, right in pairs]
            self._levels.append(hashes)

    def subtree(self, level: int, number: int) -> bytes:
        """The hash of a complete subtree."""
        return self._levels[level][number]


# -- making roots and proofs


def root(subtrees: Subtrees, size: int) -> bytes:
    """What stands for the first `size` leaves."""
    return _span(subtrees, 0, size) if size else EMPTY_ROOT


def inclusion_proof(subtrees: Subtrees, index: int, size: int) -> list[bytes]:
    """Shows that a leaf (counted from 0) is in a tree of `size` leaves. Raises ValueError for one that is not."""
    if not 0 <= index < size:
        raise ValueError(f"A tree of {size} leaves has no leaf {index}.")
    start, end, proof = 0, size, []
    while end - start > 1:
        middle = start + _largest_power_below(end - start)
        if index < middle:
            proof.append(_span(subtrees, middle, end))
            end = middle
        else:
            proof.append(_span(subtrees, start, middle))
            start = middle
    return proof[::-1]


def consistency_proof(subtrees: Subtrees, first: int, second: int) -> list[bytes]:
    """Shows that a tree of `second` leaves began as that of `first`. Raises ValueError unless 0 < first ≤ second."""
    if not 0 < first <= second:
        raise ValueError(f"No tree of {first} leaves grew to one of {second}.")
    start, end, proof = 0, second, []
    while end != first:
        middle = start + _largest_power_below(end - start)
        if first <= middle:
            proof.append(_span(subtrees, middle, end))
            end = middle
        else:
            proof.append(_span(subtrees, start, middle))
            start = middle
    if start:
        proof.append(_span(subtrees, start, end))
    return proof[::-1]


def _span(subtrees: Subtrees, start: int, end: int) -> bytes:
    """The node that covers the leaves from `start` up to `end`."""
    size = end - start
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return subtrees(level, start >> level)
    middle = start + _largest_power_below(size)
    return node_hash(_span(subtrees, start, middle), _span(subtrees, middle, end))


def _largest_power_below(size: int) -> int:
    return 1 << ((size - 1).bit_length() - 1)


# -- checking proofs (RFC 9162 §2.1.3.2 and §2.1.4.2)


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Raises `ProofRefused` unless the leaf with this hash is at `index` of the tree with this root."""
    if not 0 <= index < size:
        raise ProofRefused(f"A tree of {size} leaves has no leaf {index}.")
    node, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ProofRefused("The proof is too long.")
        if node & 1 or node == last:
            found = node_hash(sibling, found)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        node, last = node >> 1, last >> 1
    if last or found != root:
        raise ProofRefused("The proof leads to another root.")


def check_consistency(first: int, second: int, proof: Sequence[bytes], first_root: bytes, second_root: bytes) -> None:
    """Raises `ProofRefused` unless the first tree is where the second began."""
    if first == second:
        if proof or first_root != second_root:
            raise ProofRefused("Trees of one size have one root, and need no proof.")
        return
    if not 0 < first < second or not proof:
        raise ProofRefused("Nothing is proved about such sizes.")
    hashes = [first_root, *proof] if first & (first - 1) == 0 else list(proof)
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise ProofRefused("The proof is too long.")
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    if last or old != first_root or new != second_root:
        raise ProofRefused("The proof leads to other roots.")
