"""Signed notes: §2.7's vector byte for byte, and what is not accepted as one."""

from base64 import b64decode, b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from store.notes import Checkpoint, NoteError, Signer, Verifier

VKEY = "ledger.example/audit+76780bb1+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
NOTE = """ledger.example/audit
3
LP73YnWX4AtWSXV3Stco7yEHBnWfym1kE4xt/By/LNo=

— ledger.example/audit dngLsViD1PTGWl1lSMQS9QNcRKAeRRiNcNkNBGr4AMmfijkn6c7JybqRA7LzJYKQtYLQwVDwAO3Kms5Wkw/a+jLlTg4=
"""
ROOT = b64decode("LP73YnWX4AtWSXV3Stco7yEHBnWfym1kE4xt/By/LNo=")

SIGNER = Signer("ledger.example/audit", Ed25519PrivateKey.from_private_bytes(bytes(32)))
VERIFIER = Verifier.parse(VKEY)
OTHERS = [Signer(f"witness-{n}", Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in range(1, 20)]


def test_the_vector_of_the_standards_file():
    assert SIGNER.verifier.vkey == VKEY
    assert SIGNER.sign(3, ROOT) == NOTE
    assert VERIFIER.open(NOTE) == Checkpoint("ledger.example/audit", 3, ROOT)


def test_keys_survive_being_written_down():
    assert VERIFIER.vkey == VKEY
    assert Signer.parse(SIGNER.key).sign(3, ROOT) == NOTE


def cosigned(*signers: Signer) -> str:
    return NOTE + "".join(signed_by(signer, NOTE.partition("\n\n")[0] + "\n") for signer in signers)


def signed_by(signer: Signer, text: str) -> str:
    signature = signer.verifier.key_id + signer._private.sign(text.encode())
    return f"— {signer.verifier.name} {b64encode(signature).decode()}\n"


def signed(text: str) -> str:
    return f"{text}\n{signed_by(SIGNER, text)}"


def test_the_signatures_of_unknown_keys_are_ignored():
    assert VERIFIER.open(cosigned(*OTHERS[:15])).size == 3
    assert VERIFIER.open(cosigned(*OTHERS)).size == 3
    text, _, ours = NOTE.partition("\n\n")
    wrong = b64encode(b"1234" + bytes(64)).decode()
    assert VERIFIER.open(f"{text}\n\n— witness {wrong}\n{ours}").size == 3
    assert VERIFIER.open(f"{text}\n\n— ledger.example/audit {wrong}\n{ours}").size == 3  # a key id that is not ours


def test_a_known_key_that_fails_voids_the_note():
    bad = b64encode(VERIFIER.key_id + bytes(64)).decode()
    with pytest.raises(NoteError, match="not one of this text"):
        VERIFIER.open(f"{NOTE}— ledger.example/audit {bad}\n")


def test_a_note_that_the_key_has_not_signed_is_refused():
    with pytest.raises(NoteError, match="not signed by"):
        OTHERS[0].verifier.open(NOTE)


@pytest.mark.parametrize("at", range(0, len(NOTE), 3))
def test_each_altered_character_is_noticed(at: int):
    other = "A" if NOTE[at] != "A" else "B"
    with pytest.raises(NoteError):
        VERIFIER.open(NOTE[:at] + other + NOTE[at + 1 :])


@pytest.mark.parametrize(
    "text",
    [
        "ledger.example/audit\n3\n",
        "ledger.example/audit\n03\n" + NOTE.split("\n")[2] + "\n",
        "ledger.example/audit\n+3\n" + NOTE.split("\n")[2] + "\n",
        "ledger.example/audit\n-3\n" + NOTE.split("\n")[2] + "\n",
        "ledger.example/audit\n٣\n" + NOTE.split("\n")[2] + "\n",
        "ledger.example/audit\n\n" + NOTE.split("\n")[2] + "\n",
        "ledger.example/audit\n3\nLP73\n",
        "ledger.example/audit\n3\n" + NOTE.split("\n")[2].rstrip("=") + "\n",
        "ledger.example/audit\n3\n" + NOTE.split("\n")[2] + "\nextension\n",
        "ledger.example/audit\n3\n" + NOTE.split("\n")[2] + "\n\n",
        "\n3\n" + NOTE.split("\n")[2] + "\n",
        "another.example\n3\n" + NOTE.split("\n")[2] + "\n",
    ],
)
def test_a_signed_text_that_is_no_checkpoint_of_this_log_is_refused(text: str):
    with pytest.raises(NoteError):
        VERIFIER.open(signed(text))


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n\n",
        NOTE.rstrip("\n"),
        NOTE + "\n",
        NOTE.partition("\n\n")[0] + "\n\n",
        NOTE.replace("\n", "\r\n"),
        NOTE.replace("— ", "-- "),
        NOTE.replace("Tg4=", "Tg5="),
        NOTE + "— witness QUJD\n",
        NOTE + "— witness\n",
        NOTE + "— a+b QUJDREVG\n",
        cosigned(*(OTHERS * 6)),
    ],
)
def test_what_is_no_note_is_refused(note: str):
    with pytest.raises(NoteError):
        VERIFIER.open(note)


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "ledger.example/audit",
        VKEY.replace("76780bb1", "76780bb2"),
        VKEY.replace("audit", "other"),
        VKEY.replace("+ATtq", "+Ajtq"),
        VKEY + "A",
        VKEY.replace("ledger.example/audit", "ledger example"),
        VKEY.replace("ledger.example/audit", ""),
    ],
)
def test_what_is_no_key_is_refused(vkey: str):
    with pytest.raises(NoteError):
        Verifier.parse(vkey)
    with pytest.raises(NoteError):
        Signer.parse(f"PRIVATE+KEY+{vkey}")
    with pytest.raises(NoteError):
        Signer.parse(vkey)
