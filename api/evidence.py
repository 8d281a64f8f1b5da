"""What an auditor takes away to check the log without trusting this service: checkpoints, proofs, and the key."""

from base64 import b64encode
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import Connection
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from api.audit import Auditor
from api.body import StrictRoute
from api.errors import Problem, problem_responses
from api.openapi import BEARER, USER_PROBLEMS, operation_id
from api.parameters import PlainDigits, refused
from api.schemas import ConsistencyProof, InclusionProof
from api.service import Service
from domain.errors import StoreUnavailable
from store.checkpoints import Published, latest
from store.merkle import ProofRefused, check_consistency, check_inclusion, consistency_proof, inclusion_proof, root
from store.tree import Tree, TreeIncomplete

LARGEST = 2**63 - 1

router = APIRouter(
    prefix="/api/ledger", tags=["evidence"], route_class=StrictRoute, generate_unique_id_function=operation_id
)

Position = Annotated[int, Query(ge=1, le=LARGEST, description="Of an event in the log.", examples=[1]), PlainDigits]
From = Annotated[
    int, Query(alias="from", ge=1, le=LARGEST, description="The smaller size of the log.", examples=[1]), PlainDigits
]
To = Annotated[
    int, Query(ge=1, le=LARGEST, description="The larger size, at most the checkpoint's.", examples=[2]), PlainDigits
]

PLAIN = "text/plain; charset=utf-8"
_PLAIN: dict[int | str, Any] = {200: {"content": {PLAIN: {"schema": {"type": "string"}}}}}


def _documented(*problems: str) -> dict[int | str, dict[str, Any]]:
    return problem_responses(*USER_PROBLEMS, "busy", *problems)


@router.get("/key", summary="The key that signs checkpoints", response_class=Response,
            responses={**_PLAIN, **problem_responses(*USER_PROBLEMS)}, openapi_extra=BEARER)  # fmt: skip
async def read_ledger_key(http: HttpRequest, by: Auditor) -> Response:
    """The public key, as a vkey of C2SP signed notes. Whoever trusts it needs to trust nothing else here."""
    service: Service = http.app.state.service
    return Response(service.signing_key.verifier.vkey + "\n", media_type=PLAIN)


@router.get("/checkpoint", summary="The newest checkpoint", response_class=Response,
            responses={**_PLAIN, **_documented("no-checkpoint")}, openapi_extra=BEARER)  # fmt: skip
async def read_checkpoint(http: HttpRequest, by: Auditor) -> Response:
    """How long the log is and its root, as a C2SP signed note. Keep it: a later log must be consistent with it."""
    service: Service = http.app.state.service
    return Response((await service.long_reads.run(_checkpoint)).note, media_type=PLAIN)


@router.get("/proof/inclusion", summary="Proof that an event is in the log",
            responses=_documented("no-checkpoint", "position-not-sealed"), openapi_extra=BEARER)  # fmt: skip
async def prove_inclusion(http: HttpRequest, by: Auditor, position: Position) -> InclusionProof:
    """Shows that the event at this position is one of those that the newest checkpoint signed (RFC 6962 §2.1.1)."""
    service: Service = http.app.state.service
    return await service.long_reads.run(lambda connection: _inclusion(connection, position))


@router.get("/proof/consistency", summary="Proof that the log has only grown",
            responses=_documented("no-checkpoint", "position-not-sealed"), openapi_extra=BEARER)  # fmt: skip
async def prove_consistency(http: HttpRequest, by: Auditor, first: From, to: To) -> ConsistencyProof:
    """Shows that the log of the larger size begins with that of the smaller one, unaltered (RFC 6962 §2.1.2)."""
    if first > to:
        raise refused("from", "is larger than to")
    service: Service = http.app.state.service
    return await service.long_reads.run(lambda connection: _consistency(connection, first, to))


# -- in a thread that may wait for the store


def _checkpoint(connection: Connection) -> Published:
    published = latest(connection)
    if published is None:
        raise Problem("no-checkpoint", "Nothing is signed yet; the first checkpoint comes within a minute.")
    return published


def _sealed(connection: Connection, size: int) -> Published:
    """The newest checkpoint, which is not smaller than this."""
    published = _checkpoint(connection)
    if size > published.size:
        raise Problem(
            "position-not-sealed",
            f"The newest checkpoint is at {published.size}; what is newer can be proved after the next one.",
            checkpoint_size=published.size,
        )
    return published


def _inclusion(connection: Connection, position: int) -> InclusionProof:
    published = _sealed(connection, position)
    tree = Tree(connection)
    try:
        leaf, proof = tree.subtree(0, position - 1), inclusion_proof(tree.subtree, position - 1, published.size)
        check_inclusion(leaf, position - 1, published.size, proof, published.root)
    except (TreeIncomplete, ProofRefused) as error:
        raise _unproved() from error
    return InclusionProof(
        position=position, leaf_hash=_encoded(leaf), size=published.size, proof=_all(proof), checkpoint=published.note
    )


def _consistency(connection: Connection, first: int, second: int) -> ConsistencyProof:
    published = _sealed(connection, second)
    tree = Tree(connection)
    try:
        roots = root(tree.subtree, first), root(tree.subtree, second)
        proof = consistency_proof(tree.subtree, first, second)
        onward = consistency_proof(tree.subtree, second, published.size)
        check_consistency(second, published.size, onward, roots[1], published.root)
    except (TreeIncomplete, ProofRefused) as error:
        raise _unproved() from error
    return ConsistencyProof(
        **{"from": first}, to=second, from_root=_encoded(roots[0]), to_root=_encoded(roots[1]), proof=_all(proof)
    )


def _unproved() -> StoreUnavailable:
    """The kept hashes are lost or altered: they are made anew when the log is sealed next, or the log was altered."""
    return StoreUnavailable("The tree does not lead to the root that was signed.")


def _encoded(value: bytes) -> str:
    return b64encode(value).decode()


def _all(proof: Sequence[bytes]) -> list[str]:
    return [_encoded(each) for each in proof]
