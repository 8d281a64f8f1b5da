"""Ends the sessions of many at once: of everybody, or of the users that are named."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends
from starlette.requests import Request as HttpRequest

from api.body import StrictRoute
from api.credentials import Authorized, Needs
from api.errors import Problem, problem_responses
from api.openapi import BEARER, WRITING, operation_id
from api.schemas import BulkRevocation, BulkRevoked
from api.service import Service, durable
from domain.bulk_revocation import INSTANT
from domain.errors import LedgerBusy, StoreUnavailable
from domain.events import EndReason
from domain.ledger import Request
from projections.bulk_revocation import Count, count_active, count_ended
from store.api_keys import Scope
from store.database import store_errors

COUNTING_S = 1.0
"""A million live sessions take 3 to 5 s on SQLite."""

router = APIRouter(
    prefix="/api/sessions", tags=["users"], route_class=StrictRoute, generate_unique_id_function=operation_id
)


@router.post("/revoke", summary="End the sessions of many", responses=problem_responses(*WRITING), openapi_extra=BEARER)
async def revoke_many(
    http: HttpRequest, body: BulkRevocation, by: Annotated[Authorized, Depends(Needs(Scope.USERS_ADMIN))]
) -> BulkRevoked:
    """End every session, of the named users or of everybody, that was created before a moment, or before now.

    From the answer on none of them is valid. A dry run says what the run would end, and ends nothing. The run of named
    users is a job: once it is recorded it is finished also when this process is not there to finish it.
    """
    service: Service = http.app.state.service
    now = service.clock.now()
    if body.created_before and body.created_before > now:
        fault = {"pointer": "/created_before", "detail": "lies in the future"}
        raise Problem("invalid-request", "/created_before: lies in the future", errors=[fault])
    before = body.created_before or now + INSTANT
    users = None if body.user_ids is None else [*dict.fromkeys(map(service.keys.pseudonym, body.user_ids))]
    if body.dry_run:
        return _answer(body, before, await asyncio.to_thread(_count, service, now, before, users), None)
    request, reason = await by.command(), EndReason(body.reason)
    if users is None:
        count, moment = await _invalidate(service, now, body.created_before, reason, request)
    else:
        count, moment = await _revoke(service, users, body.created_before, reason, request)
    return _answer(body, moment, count, request.correlation_id)


async def _invalidate(
    service: Service, now: datetime, before: datetime | None, reason: EndReason, request: Request
) -> tuple[Count | None, datetime]:
    """Sign everybody out. Counting looks at every live session, and is waited for no longer than a moment before."""
    counting = service.long_reads.run(lambda connection: count_active(connection, now, before or now + INSTANT, None))
    counted = asyncio.ensure_future(counting)
    await asyncio.wait({counted}, timeout=COUNTING_S)
    ending = service.ledger.invalidate_sessions(before, reason, request)
    try:
        count = await counted
    except (LedgerBusy, StoreUnavailable):
        count = None
    return count, (await durable(ending)).result


async def _revoke(
    service: Service, users: Sequence[UUID], before: datetime | None, reason: EndReason, request: Request
) -> tuple[Count, datetime]:
    """Record the job, then do it at once instead of waiting for the policy, which finds nothing left to do."""
    noted = await durable(service.ledger.request_revocation(tuple(users), before, reason, request))
    job = noted.result
    answering = replace(request, causation_id=job.requested_by)
    await durable(service.revoke_on_request.carry_out(users, job.before, reason, answering))
    return await asyncio.to_thread(_ended, service, request.correlation_id, reason, noted.position), job.before


def _count(service: Service, now: datetime, before: datetime, users: Sequence[UUID] | None) -> Count:
    with store_errors(), service.database.reading() as connection:
        return count_active(connection, now, before, users)


def _ended(service: Service, correlation_id: UUID, reason: EndReason, after: int) -> Count:
    with store_errors():
        return count_ended(service.recorder, service.mapper, correlation_id, reason, after)


def _answer(body: BulkRevocation, before: datetime, count: Count | None, correlation_id: UUID | None) -> BulkRevoked:
    return BulkRevoked(
        message="Nothing was ended: a dry run" if body.dry_run else "Sessions revoked",
        dry_run=body.dry_run,
        revoked_count=count and count.sessions,
        user_count=count and count.users,
        created_before=before,
        correlation_id=correlation_id,
    )
