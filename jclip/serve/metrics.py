"""Figures of the service, in Prometheus's text format."""

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

MEDIA_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters and histograms of one service."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._gauges: dict[str, Gauge] = {}
        registry = self._registry
        self._requests = Counter("jclip_requests", "Answered requests.", ("endpoint", "status"), registry=registry)
        self._latency = Histogram(
            "jclip_request_seconds",
            "Time from a request to its answer.",
            ("endpoint",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._batch = Histogram("jclip_batch_size", "Items in a batch.", ("lane",), buckets=_SIZES, registry=registry)
        self._encoding = Histogram(
            "jclip_batch_seconds", "Encoding of a batch.", ("lane",), buckets=_SECONDS, registry=registry
        )

    def answered(self, endpoint: str, status: int, seconds: float) -> None:
        """Notes an answer. `endpoint` is a path of the description, so that clients cannot add series."""
        self._requests.labels(endpoint, str(status)).inc()
        self._latency.labels(endpoint).observe(seconds)

    def encoded(self, lane: str, items: int, seconds: float) -> None:
        """Notes a batch."""
        self._batch.labels(lane).observe(items)
        self._encoding.labels(lane).observe(seconds)

    def watch(self, name: str, about: str, value: Callable[[], float], **labels: str) -> None:
        """Shows a number that is computed when the metrics are read. Each name is watched once for each label."""
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, about, tuple(labels), registry=self._registry)
        gauge = self._gauges[name]
        (gauge.labels(*labels.values()) if labels else gauge).set_function(value)

    def text(self) -> bytes:
        """Returns all figures in the text format."""
        return generate_latest(self._registry)
