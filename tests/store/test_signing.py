"""The signing key and the signer's memory: what is signed, and what is refused."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.ids import new_uuid7
from api.service import Service, Stores, beside
from domain.session import Limits
from store import signing
from store.merkle import EMPTY_ROOT, consistency_proof, leaf_hash, root
from store.notes import Signer
from store.signing import SigningKey, SigningKeyError, SigningRefused, bound_key
from tests.clock import ManualClock
from tests.conftest import OpenService
from tests.store.given import subtrees_of

LEAVES = [leaf_hash(b"%d" % number) for number in range(9)]
subtrees = subtrees_of(LEAVES)


@pytest.fixture
def key(open_service: OpenService) -> SigningKey:
    return open_service().signing_key


def sign(key: SigningKey, size: int) -> str:
    with key.signing() as held:
        proof = consistency_proof(subtrees, held.last.size, size) if 0 < held.last.size <= size else []
        return held.sign(size, root(subtrees, size), proof)


def test_the_first_start_makes_a_key_that_its_owner_alone_can_read(open_service: OpenService, stores: Stores):
    service = open_service()
    path = beside(stores.master_key_file)
    assert service.signing_key.path == path
    assert path.stat().st_mode & 0o077 == 0
    assert bound_key(service.database) == service.signing_key.verifier.vkey
    assert service.signing_key.remembered() == ("session-ledger", 0, EMPTY_ROOT)


def test_what_was_signed_is_remembered_and_signed_again_alike(key: SigningKey):
    note = sign(key, 5)
    assert key.verifier.open(note) == key.remembered() == ("session-ledger", 5, root(subtrees, 5))
    assert sign(key, 5) == note
    assert sign(key, 9) == key.memory.read_text()


def test_nothing_is_signed_behind_what_was_signed(key: SigningKey):
    note = sign(key, 5)
    with pytest.raises(SigningRefused, match="ends at 4, and 5 was signed: this is an older copy"):
        sign(key, 4)
    assert key.memory.read_text() == note


@pytest.mark.parametrize("size", [5, 6, 9])
def test_nothing_is_signed_that_did_not_grow_out_of_what_was_signed(key: SigningKey, size: int):
    note = sign(key, 5)
    with key.signing() as held, pytest.raises(SigningRefused, match="not the one that was signed at 5"):
        held.sign(size, bytes(32), consistency_proof(subtrees, 5, size))
    assert key.memory.read_text() == note


def test_a_published_note_is_held_to_like_the_memory(key: SigningKey):
    note = sign(key, 5)
    older = Signer.parse(key.path.read_text().strip()).sign(3, root(subtrees, 3))
    key.memory.write_text(older)
    with key.signing() as held:
        held.heed("no note")
        held.heed(older)
        assert held.last.size == 3
        held.heed(note)
        with pytest.raises(SigningRefused, match="ends at 4"):
            held.sign(4, root(subtrees, 4), consistency_proof(subtrees, 3, 4))


@pytest.mark.parametrize("left", [None, b"", b"nothing", b"\xff"])
def test_without_its_memory_nothing_is_signed(key: SigningKey, left: bytes | None):
    sign(key, 5)
    key.memory.unlink()
    if left is not None:
        key.memory.write_bytes(left)
    with pytest.raises(SigningKeyError, match="cannot be read"):
        sign(key, 6)


def test_a_lost_key_is_not_replaced_by_a_new_one(open_service: OpenService, key: SigningKey):
    key.path.unlink()
    with pytest.raises(SigningKeyError, match="is missing: restore it"):
        open_service()


def test_another_key_is_refused(open_service: OpenService, key: SigningKey):
    other = key.path.read_text().replace("session-ledger", "other").strip()
    with pytest.raises(SigningKeyError, match="id is not that"):
        key.path.write_text(other)
        open_service()
    key.path.write_text(Signer("session-ledger", Ed25519PrivateKey.generate()).key)
    with pytest.raises(SigningKeyError, match="is not the key that this log is signed with"):
        open_service()


def test_a_key_that_signs_under_another_name_is_refused(key: SigningKey, stores: Stores, clock: ManualClock):
    with pytest.raises(SigningKeyError, match="signs as 'session-ledger', and LEDGER_ORIGIN is 'other'"):
        Service(replace(stores, origin="other"), Limits(), new_uuid7, clock)


def test_who_hangs_with_the_right_to_sign_holds_nobody_up(key: SigningKey, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(signing, "PATIENCE_S", 0.05)
    with key.signing(), pytest.raises(TimeoutError, match="Another process has held"):
        sign(key, 1)
    sign(key, 1)
