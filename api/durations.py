"""How long requests take, counted as OpenTelemetry says (`http.server.request.duration`, stable; OBS-05).

Labels come from closed lists, so that nobody makes a new series by what he sends, and no person is in one (OBS-06).
"""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
BUCKETS = [*map(floatToGoString, BOUNDS_S), "+Inf"]
METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
OTHER = "_OTHER"


class Kind(NamedTuple):
    """What is told of a request beside its duration: the labels, in this order."""

    http_request_method: str
    url_scheme: str
    http_route: str
    http_response_status_code: str
    error_type: str


class _Series:
    """Requests of one kind: how many fell into each bucket, and their seconds in all."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * len(BUCKETS)
        self.seconds = 0.0


class RequestDurations(Collector):
    """The requests of one application. Adding is done on the event loop only, and needs no lock."""

    def __init__(self) -> None:
        self._series: dict[Kind, _Series] = {}

    def add(self, method: str, scheme: str, route: str, status: int | None, seconds: float) -> None:
        """A request that was answered, or whose client has left before there was a status. `route` is a template.

        An error is what failed on our side, and its type is the status.
        """
        code = str(status or "")
        kind = Kind(method if method in METHODS else OTHER, scheme, route, code, code if code >= "500" else "")
        series = self._series.get(kind)
        if series is None:
            series = self._series[kind] = _Series()
        series.counts[bisect_left(BOUNDS_S, seconds)] += 1
        series.seconds += seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        told = HistogramMetricFamily(
            "http_server_request_duration_seconds", "Duration of HTTP requests.", labels=Kind._fields
        )
        for kind, series in sorted(dict(self._series).items()):
            buckets = [*zip(BUCKETS, accumulate(series.counts), strict=True)]
            told.add_metric(kind, buckets, series.seconds)
        yield told
