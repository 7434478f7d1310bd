"""What every listener answers beside its own work: probes, metrics, and the registry of error codes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from aiohttp import web
from attrs import asdict, define, field

from diego_py.call import Call
from diego_py.errors import CodeNotFound, DiegoError, RequestFailed, ShuttingDown, registry
from diego_py.http.metrics import ServerMetrics
from diego_py.http.server import Route, answer, found

Check = Callable[[], Awaitable[str | None]]
"""Says what keeps a part from being ready, or None."""
About = Callable[[], Mapping[str, object]]
"""Says what a part found and decided; it changes nothing of being ready."""


@define
class StandardRoutes:
    """`/livez`, `/readyz`, `/metrics`, `/errors` of one process."""

    metrics: ServerMetrics
    checks: Mapping[str, Check]
    fails_as: type[DiegoError] = RequestFailed
    warnings: Callable[[], Sequence[str]] = tuple
    """What an operator should mend, though the process is ready."""
    about: Mapping[str, About] = field(factory=dict)

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/livez", "livez", self.livez, self.fails_as, counted=False),
            Route("GET", "/readyz", "readyz", self.readyz, self.fails_as, counted=False),
            Route("GET", "/metrics", "metrics", self.exposition, self.fails_as, counted=False),
            Route("GET", "/errors", "list_codes", self.list_codes, self.fails_as, counted=False),
            Route("GET", "/errors/{code}", "get_code", self.get_code, self.fails_as, counted=False),
        ]

    async def livez(self, request: web.Request, call: Call) -> web.StreamResponse:
        """200 while the event loop turns."""
        return answer({"status": "ok"})

    async def readyz(self, request: web.Request, call: Call) -> web.StreamResponse:
        """200 when every part is ready; 503 names those that are not. `?verbose` tells all, and warnings."""
        found_wanting = {name: await check() for name, check in self.checks.items()}
        bad = {name: reason for name, reason in found_wanting.items() if reason}
        if bad:
            told = "; ".join(f"{name}: {reason}" for name, reason in bad.items())
            raise ShuttingDown(f"not ready: {told}", evidence={"checks": found_wanting})
        if "verbose" not in request.query:
            return answer({"status": "ok"})
        told_of = {name: about() for name, about in self.about.items()}
        all_of_it = {"status": "ok", "checks": found_wanting, "warnings": list(self.warnings())}
        return answer({**all_of_it, **({"about": told_of} if told_of else {})})

    async def exposition(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Prometheus text format."""
        return web.Response(body=self.metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def list_codes(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Every code with its meaning."""
        return answer([describe(kind) for kind in registry().values()])

    async def get_code(self, request: web.Request, call: Call) -> web.StreamResponse:
        """What one code means, who has to act, and what to do next."""
        code = request.match_info["code"]
        return answer(describe(found(registry().get(code), CodeNotFound(f"no error has the code {code[:80]!r}"))))


def describe(kind: type[DiegoError]) -> dict[str, object]:
    """The registry's entry of one class of errors."""
    return {
        "code": kind.code,
        "title": kind.title,
        "meaning": " ".join((kind.__doc__ or "").split()),
        "status": kind.status,
        "fault": str(kind.fault),
        "retryable": kind.retryable,
        "next": [{k: v for k, v in asdict(step).items() if v is not None} for step in kind.next],
    }
