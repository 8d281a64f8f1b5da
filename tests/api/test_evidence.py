"""What an auditor takes away over HTTP is enough to check the log without trusting the service (TEV-01, TEV-02)."""

from base64 import b64decode

import pytest

from store.api_keys import Scope
from store.log import leaf, pages
from store.merkle import check_consistency, check_inclusion, leaf_hash
from store.notes import Checkpoint, Verifier
from store.schema import tiles
from tests.api.client import ADMIN, Api, Headers, bearer, told

USERS = 5


@pytest.fixture
def auditor(api: Api) -> Headers:
    return bearer(api.key(Scope.AUDIT_READ)[1])


@pytest.fixture
def sealed(api: Api, auditor: Headers) -> list[Checkpoint]:
    """The checkpoints of a log that was sealed after each of five sign-ins."""
    found = []
    for number in range(USERS):
        api.sign_in(f"user {number}")
        api.service.sealer.seal()
        found.append(checkpoint(api, auditor))
    return found


@pytest.fixture(scope="module")
def sealed_once(shared_api: Api) -> Api:
    """A log with a checkpoint, about which tests only ask."""
    shared_api.sign_in()
    shared_api.service.sealer.seal()
    return shared_api


def checkpoint(api: Api, auditor: Headers) -> Checkpoint:
    key, note = api.get("/api/ledger/key", auditor), api.get("/api/ledger/checkpoint", auditor)
    assert key.headers["Content-Type"] == note.headers["Content-Type"] == "text/plain; charset=utf-8"
    return Verifier.parse(key.text.removesuffix("\n")).open(note.text)


def head(api: Api) -> int:
    return api.service.recorder.max_notification_id() or 0


def test_each_event_is_proved_to_be_in_the_log(api: Api, auditor: Headers, sealed: list[Checkpoint]):
    with api.service.database.reading() as connection:
        records = [record for page in pages(connection, 0, head(api)) for record in page]
    for record in records:
        answer = api.get(f"/api/ledger/proof/inclusion?position={record.position}", auditor).json()
        assert b64decode(answer["leaf_hash"]) == leaf_hash(leaf(record))
        assert api.service.signing_key.verifier.open(answer["checkpoint"]) == sealed[-1]
        proof = [*map(b64decode, answer["proof"])]
        check_inclusion(leaf_hash(leaf(record)), record.position - 1, answer["size"], proof, sealed[-1].root)
    assert len(records) == sealed[-1].size


def test_each_checkpoint_is_proved_to_be_where_a_later_one_began(api: Api, auditor: Headers, sealed: list[Checkpoint]):
    for older in sealed:
        for newer in sealed[sealed.index(older) :]:
            query = {"from": older.size, "to": newer.size}
            answer = api.request("GET", "/api/ledger/proof/consistency", auditor, params=query).json()
            assert (answer["from"], answer["to"]) == (older.size, newer.size)
            assert [b64decode(answer[name]) for name in ("from_root", "to_root")] == [older.root, newer.root]
            check_consistency(older.size, newer.size, [*map(b64decode, answer["proof"])], older.root, newer.root)


def test_before_the_first_checkpoint_there_is_none(api: Api, auditor: Headers):
    api.sign_in()
    for path in ("checkpoint", "proof/inclusion?position=1", "proof/consistency?from=1&to=1"):
        assert told(api.get(f"/api/ledger/{path}", auditor)) == (404, "no-checkpoint")
    assert api.get("/api/ledger/key", auditor).status_code == 200


def test_what_is_newer_than_the_last_checkpoint_is_not_proved_yet(api: Api, auditor: Headers, sealed):
    api.sign_in("user 0")
    size = sealed[-1].size
    for path in (
        f"inclusion?position={size + 1}",
        f"consistency?from=1&to={size + 1}",
        f"inclusion?position={2**63 - 1}",
    ):
        answer = api.get(f"/api/ledger/proof/{path}", auditor)
        assert (told(answer), answer.json()["checkpoint_size"]) == ((404, "position-not-sealed"), size)
    api.service.sealer.seal()
    assert api.get(f"/api/ledger/proof/inclusion?position={size + 1}", auditor).status_code == 200


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("inclusion", "position"),
        ("inclusion?position=0", "position"),
        ("inclusion?position=-1", "position"),
        ("inclusion?position=x", "position"),
        (f"inclusion?position={2**63}", "position"),
        ("inclusion?position=1&position=1", "position"),
        ("consistency?from=0&to=1", "from"),
        ("consistency?from=2&to=1", "from"),
        ("consistency?from=1", "to"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(sealed_once: Api, query: str, parameter: str):
    answer = sealed_once.get(f"/api/ledger/proof/{query}", ADMIN)
    assert told(answer) == (422, "invalid-request")
    assert answer.json()["errors"][0]["parameter"] == parameter


@pytest.mark.usefixtures("sealed")
def test_what_does_not_lead_to_the_signed_root_is_not_given_out_as_a_proof(api: Api, auditor: Headers):
    for hashes in (b"", bytes(32 * 256)):
        with api.service.database.transaction() as connection:
            connection.execute(tiles.update().values(hashes=hashes))
        for path in ("inclusion?position=3", "consistency?from=3&to=5"):
            assert told(api.get(f"/api/ledger/proof/{path}", auditor)) == (503, "store-unavailable")
