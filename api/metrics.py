"""`GET /metrics`: what Prometheus asks for (OBS-05, OBS-06). No label names a person, a session or an address."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import accumulate
from typing import Any

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, Metric, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from api.durations import RequestDurations
from api.errors import problem_responses
from api.openapi import operation_id
from api.service import Service
from domain.errors import StoreUnavailable
from projections.progress import status
from store.database import store_errors

router = APIRouter(tags=["operations"], generate_unique_id_function=operation_id)

BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_PLAIN: dict[int | str, Any] = {200: {"content": {CONTENT_TYPE_PLAIN_0_0_4: {"schema": {"type": "string"}}}}}
_PROBLEMS = problem_responses("credential-in-url", "body-too-large", "request-timeout")


@router.get("/metrics", summary="Metrics for Prometheus", responses={**_PLAIN, **_PROBLEMS}, response_class=Response)
async def metrics(http: HttpRequest) -> Response:
    """Requests and their durations, the log and who follows it, the writer, and the process; as text.

    It is answered also when the store is not: `ledger_store_up` is 0 then, and what is known of the store is left out.
    """
    service: Service = http.app.state.service
    text = await service.probing.run(partial(generate_latest, http.app.state.metrics))
    return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)


def registry_of(service: Service, durations: RequestDurations) -> CollectorRegistry:
    """Everything that one application tells; nothing is shared with another one in this process."""
    registry = CollectorRegistry()
    registry.register(durations)
    registry.register(LedgerMetrics(service))
    ProcessCollector(registry=registry)
    return registry


class LedgerMetrics(Collector):
    """The ledger, looked at anew for each scrape."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def describe(self) -> Iterable[Metric]:
        """Nothing: otherwise the registry would ask the store what there is before anybody scrapes."""
        return ()

    def collect(self) -> Iterator[Metric]:
        yield from self._of_process()
        try:
            with store_errors():
                of_store = list(self._of_store())
        except StoreUnavailable:
            of_store = []
        yield _gauge("ledger_store_up", "Whether the store answers.", bool(of_store))
        yield from of_store

    def _of_process(self) -> Iterator[Metric]:
        service, writer = self._service, self._service.writer
        yield _gauge("ledger_leader", "Whether this process follows the log.", service.follower.is_leading)
        yield _gauge("ledger_clock_drift_seconds", "The wall clock against the ledger's.", service.clock.drift_s())
        yield _gauge("ledger_writer_queue_commands", "Commands that wait to be recorded.", writer.waiting)
        yield _batches(dict(writer.batches))
        yield _counter("ledger_events_appended", "Events that this process has appended.", "topic", writer.appended)
        yield _counter("ledger_commands_refused", "Commands refused, by the error.", "reason", writer.refused)

    def _of_store(self) -> Iterator[Metric]:
        """The log, and each read model, projection and policy, as the tables say that all processes share."""
        with self._service.database.reading() as connection:
            found = status(connection, self._service.clock.micros())
        yield _gauge("ledger_log_position", "The last position of the log.", found.position)
        position, events, seconds, parked = (
            GaugeMetricFamily(f"ledger_follower_{name}", told, labels=["follower"])
            for name, told in (
                ("position", "How far a follower has come along the log."),
                ("lag_events", "Events that it has not seen."),
                ("lag_seconds", "Age of the oldest of them."),
                ("parked", "Whether it has stopped at an event that it cannot take."),
            )
        )
        for follower in found.followers:
            position.add_metric([follower.name], follower.position)
            events.add_metric([follower.name], follower.lag_events)
            seconds.add_metric([follower.name], follower.lag_seconds)
            parked.add_metric([follower.name], follower.parked is not None)
        yield from (position, events, seconds, parked)


def _gauge(name: str, told: str, value: float) -> Metric:
    return GaugeMetricFamily(name, told, value)


def _counter(name: str, told: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, told, labels=[label])
    for value, count in sorted(dict(counts).items()):
        family.add_metric([value], count)
    return family


def _batches(sizes: Mapping[int, int]) -> Metric:
    """How many commands were recorded with one commit (D8)."""
    below = [0] * (len(BATCH_BOUNDS) + 1)
    for size, count in sizes.items():
        below[sum(size > bound for bound in BATCH_BOUNDS)] += count
    family = HistogramMetricFamily("ledger_writer_batch_commands", "Commands recorded with one commit.", labels=[])
    buckets = zip((*(f"{bound}.0" for bound in BATCH_BOUNDS), "+Inf"), accumulate(below), strict=True)
    family.add_metric([], list(buckets), float(sum(size * count for size, count in sizes.items())))
    return family
