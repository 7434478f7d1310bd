"""Prometheus metrics of one listener, in a registry of its own so that many processes' worth fit in one test."""

from __future__ import annotations

from attrs import define, field
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from diego_py.chain import Problem

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@define
class ServerMetrics:
    """Requests by operation and status, failures by code and fault. Labels come from closed sets only."""

    registry: CollectorRegistry = field(factory=lambda: CollectorRegistry(auto_describe=True))
    _requests: Counter = field(init=False)
    _failures: Counter = field(init=False)
    _seconds: Histogram = field(init=False)
    _of: dict[tuple[str, int], tuple[Counter, Histogram]] = field(factory=dict, init=False)
    """What is counted for one operation and status: finding it by its labels is most of the cost."""

    def __attrs_post_init__(self) -> None:
        self._requests = Counter("http_requests", "Answered requests", ["op", "status"], registry=self.registry)
        self._failures = Counter("http_failures", "Failure documents", ["op", "code", "fault"], registry=self.registry)
        self._seconds = Histogram(
            "http_request_seconds", "Time to the answer", ["op"], buckets=_SECONDS, registry=self.registry
        )

    def observe(self, op: str, status: int, seconds: float, failure: Problem | None) -> None:
        """Count one answered request."""
        known = self._of.get((op, status))
        if known is None:
            known = self._of[op, status] = self._requests.labels(op, str(status)), self._seconds.labels(op)
        requests, times = known
        requests.inc()
        times.observe(seconds)
        if failure is not None:
            self._failures.labels(op, failure.code, failure.fault).inc()

    def exposition(self) -> bytes:
        """The text format of all metrics."""
        return generate_latest(self.registry)
