"""Whether this process lives, and whether it should get requests."""

from functools import partial
from uuid import UUID

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest

from api.errors import Problem, problem_responses
from api.openapi import operation_id
from api.schemas import FollowerProgress, Health, Readiness, SealingProgress
from api.service import Service
from projections.follower import Progress
from store.clock import MAX_DRIFT_S
from store.database import store_errors
from store.keys import stream_keys_query

router = APIRouter(tags=["operations"], generate_unique_id_function=operation_id)

_REFUSED = ("credential-in-url", "body-too-large", "request-timeout")


@router.get("/healthz", summary="Liveness", responses=problem_responses(*_REFUSED))
async def healthz() -> Health:
    """200 while the process answers at all."""
    return Health(status="ok")


@router.get("/readyz", summary="Readiness", responses=problem_responses(*_REFUSED, "store-unavailable", "clock-drift"))
async def readyz(http: HttpRequest) -> Readiness:
    """Whether the store answers and the clock can be trusted, and how far policies and projections have come."""
    service: Service = http.app.state.service
    drift_s = service.clock.drift_s()
    if abs(drift_s) > MAX_DRIFT_S:
        raise Problem("clock-drift", f"The wall clock is {drift_s:.0f} s away from the clock of the ledger.")
    await service.key_reads.rows(stream_keys_query(1), s0=UUID(int=0))  # every check may need a key
    found, sealing = await service.probing.run(partial(_progress, service))
    return Readiness(
        status="degraded" if sealing.refused or any(each.parked for each in found) else "ready",
        is_leader=service.follower.is_leading,
        clock_drift_seconds=round(drift_s, 3),
        policies=[_told(each) for each in found if not each.is_projection],
        projections=[_told(each) for each in found if each.is_projection],
        sealing=sealing,
    )


def _progress(service: Service) -> tuple[list[Progress], SealingProgress]:
    with store_errors():
        return service.follower.progress(), SealingProgress(**service.sealer.progress()._asdict())


def _told(progress: Progress) -> FollowerProgress:
    return FollowerProgress(
        name=progress.name,
        position=progress.position,
        lag_events=progress.lag_events,
        lag_seconds=round(progress.lag_seconds, 3),
        events_per_second=round(progress.rate, 1),
        parked=progress.parked,
    )
