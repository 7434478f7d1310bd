"""The server side of a hop: routes with names, one frame a request, and a failure document for every non-2xx."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from typing import TypeVar

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from attrs import Factory, asdict, define, evolve, field, frozen

from diego_py import chain, telling, wire
from diego_py.bad_fields import bad_fields
from diego_py.call import Call
from diego_py.errors import (
    BodyTooLarge,
    CallerError,
    ConnectionLost,
    DiegoError,
    InternalError,
    InvalidSpec,
    MalformedJSON,
    MethodNotAllowed,
    NotFound,
    Outcome,
    RouteNotFound,
    Saturated,
    UnsupportedMediaType,
)
from diego_py.http import headers, parts
from diego_py.http.admission import KEPT_UP_WITH, Admission, Gate
from diego_py.http.line_stream import ended_with
from diego_py.http.metrics import ServerMetrics
from diego_py.http.parts import Part, Parts
from diego_py.http.turned_away import Refusals
from diego_py.models.fields import FieldError
from diego_py.service.clock import Clock

T = TypeVar("T")
Handler = Callable[[web.Request, Call], Awaitable[web.StreamResponse | Parts]]

JSON = "application/json"
RETRY_AFTER_S_MAX = 86_400
READING = ("GET", "HEAD")
"""What begins nothing."""
REFUSALS_TOLD_S = 1.0
"""Those of so long are one event in the log."""


@frozen
class Route:
    """One operation: where it is, what it is called in the chain, and what leaving it with an error is called."""

    method: str
    path: str
    op: str
    handler: Handler
    fails_as: type[DiegoError]
    counted: bool = True
    """Counts against the limit of requests under way. Probes, heartbeats and log streams do not."""
    light: bool = False
    """Asked thousands of times a second, and nobody reads what is told of it: unless it fails it has no line in the
    log, and its answer no ids and no timings."""
    takes: type | None = None
    """The model of the body, for the description of the API."""
    gives: type | None = None
    """The model of a 2xx answer."""
    query: tuple[str, ...] = ()
    """Query parameters that it understands."""


@define
class HopServer:
    """What the middleware of one listener needs. One for each process."""

    hop: str
    id: str
    clock: Clock
    log: structlog.stdlib.BoundLogger
    metrics: ServerMetrics
    in_flight_max: int
    body_bytes_max: int
    default_budget_ms: float
    crowded: Callable[[], str | None] = lambda: None
    """Says why nothing new should be begun now, or None. What is under way then comes to its end first. Every text
    that it has is kept."""
    admission: Admission = field(default=Factory(lambda self: Admission(self.in_flight_max), takes_self=True))
    """Limits that follow what the process keeps up with. Several listeners of one process share it."""
    in_flight: int = field(default=0, init=False)
    _refusals: Refusals = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._refusals = Refusals(self.hop, self.id)

    def application(self, routes: Sequence[Route]) -> web.Application:
        """An aiohttp application that serves `routes` and answers everything else with a document too."""
        app = web.Application(middlewares=[self.middleware], client_max_size=self.body_bytes_max)
        app[HOP_SERVER] = self
        for route in routes:
            app.router.add_route(route.method, route.path, self.serve(route))
        return app

    @web.middleware
    async def middleware(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Turn what the router and aiohttp itself refuse into documents; routed handlers never raise."""
        if request.match_info.http_exception is None:
            return await handler(request)
        call = headers.call_from(request.headers, self.clock, self.default_budget_ms)
        refused = Route(request.method, "", "route", self._refuse, RouteNotFound, counted=False)
        return await self._answer(refused, request, call)

    @contextmanager
    def uncounted(self, request: web.Request) -> Iterator[None]:
        """Inside, the request does not count as under way: it only waits for something to happen."""
        gate = self._gate(request.method)
        self.in_flight -= 1
        gate.under_way -= 1
        try:
            yield
        finally:
            self.in_flight += 1
            gate.under_way += 1

    def refusal(self, request: web.BaseRequest, error: DiegoError) -> web.Response:
        """The answer to what never came as far as a route: see diego_py.http.runner."""
        began_s = self.clock.monotonic()
        call = headers.call_from(request.headers, self.clock, self.default_budget_ms)
        try:
            with call.hop(self.hop, self.id, "read_request", type(error)):
                raise error
        except DiegoError as refused:
            failure = chain.problem(refused, call)
            self._log_defect(refused)
        self._record("read_request", request, call, failure.status, failure, self.clock.monotonic() - began_s)
        return document(failure, call)

    def serve(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """What answers the requests of one route; it never raises."""

        async def serve(request: web.Request) -> web.StreamResponse:
            call = headers.call_from(request.headers, self.clock, self.default_budget_ms)
            if route.light:
                return await self._answer_lightly(route, request, call)
            if not route.counted:
                return await self._answer(route, request, call)
            if (why := self._why_not(request.method)) is not None:
                return self._turn_away(route, why, call)
            gate = self._gate(request.method)
            self.in_flight += 1
            gate.under_way += 1
            try:
                return await self._answer(route, request, call)
            finally:
                self.in_flight -= 1
                gate.under_way -= 1

        return serve

    async def _refuse(self, request: web.Request, call: Call) -> web.StreamResponse:
        refusal = request.match_info.http_exception
        if isinstance(refusal, web.HTTPMethodNotAllowed):
            allowed = ", ".join(sorted(refusal.allowed_methods))
            raise MethodNotAllowed(f"this path takes {allowed}", evidence={"allow": allowed})
        raise RouteNotFound("no resource has this path")

    async def _answer(self, route: Route, request: web.Request, call: Call) -> web.StreamResponse:
        began_s = self.clock.monotonic()
        response: web.StreamResponse
        failure: chain.Problem | None = None
        try:
            with call.hop(self.hop, self.id, route.op, route.fails_as) as inner:
                budget = headers.budget_from(request.headers, self.clock)
                inner = inner if budget is None else evolve(inner, budget=budget)
                given = await self._translated(route, request, inner)
            if isinstance(given, Parts):
                return await self._answer_parts(route, request, call, given)
            response = given
            timing = headers.server_timing(inner.here.critical_path() if inner.here else ())
            if not response.prepared:
                response.headers.update(headers.identity(call))
                response.headers[headers.SERVER_TIMING] = timing
        except DiegoError as error:
            failure = error.problem if error.finished else chain.problem(error, call, _subject(request))
            response = document(failure, call)
            self._log_defect(error)
            if request.writer.output_size > 0 and request.transport is not None:
                # The head said 200: only a last line can tell the reader now, or a broken body.
                ended = await ended_with(request, failure)
                if ended is None and request.transport is not None:
                    request.transport.abort()
                response = ended or response
        ended_s = self.clock.monotonic()
        # Whoever waits for the answer need not wait for what we write down of it.
        status = response.status if failure is None else failure.status
        asyncio.get_running_loop().call_soon(
            self._record, route.op, request, call, status, failure, ended_s - began_s
        )
        return response

    async def _answer_lightly(self, route: Route, request: web.Request, call: Call) -> web.StreamResponse:
        """Counted, and no more than that. What fails is answered and told as everywhere."""
        began_s = self.clock.monotonic()
        try:
            budget = headers.budget_from(request.headers, self.clock)
            response = await route.handler(request, call if budget is None else evolve(call, budget=budget))
        except Exception as error:
            failed = error

            async def fail(request: web.Request, call: Call) -> web.StreamResponse:
                raise failed

            return await self._answer(evolve(route, handler=fail), request, call)
        assert isinstance(response, web.StreamResponse)
        self.metrics.observe(route.op, response.status, self.clock.monotonic() - began_s, None)
        return response

    async def _answer_parts(
        self, route: Route, request: web.Request, call: Call, given: Parts
    ) -> web.StreamResponse:
        """Each part as if it were a request of its own: counted, let in or refused, measured and told in the log."""

        async def decide(position: int, part: Part) -> bytes:
            began_s, status = self.clock.monotonic(), 201
            failure: chain.Problem | None = None
            why, gate = self._why_not(request.method), self._gate(request.method)
            self.in_flight += 1
            gate.under_way += 1
            try:
                with part.call.hop(self.hop, self.id, route.op, route.fails_as) as inner:
                    if why is not None:
                        raise Saturated(why, outcome=Outcome.NOT_STARTED, retry_after_s=1.0)
                    body = telling.encode(await part.work(inner))
                timing = headers.server_timing(inner.here.critical_path() if inner.here else ())
                line = parts.given_line(position, body, timing)
            except DiegoError as error:
                failure = error.problem if error.finished else chain.problem(error, part.call)
                status = failure.status
                line = parts.failed_line(position, failure)
                self._log_defect(error)
            finally:
                self.in_flight -= 1
                gate.under_way -= 1
            seconds = self.clock.monotonic() - began_s
            asyncio.get_running_loop().call_soon(
                self._record, route.op, request, part.call, status, failure, seconds
            )
            return line

        return await parts.answered(request, call, given.parts, decide)

    def _gate(self, method: str) -> Gate:
        return self.admission.reads if method in READING else self.admission.changes

    def _why_not(self, method: str) -> str | None:
        """Why a request is not let in, before anything of it is read or done; None when it is. What is begun and
        cannot be finished helps nobody."""
        if self.in_flight >= self.in_flight_max:
            return f"{self.in_flight_max} requests are under way"
        if self._gate(method).is_full():
            return KEPT_UP_WITH
        return None if method in READING else self.crowded()

    def _turn_away(self, route: Route, why: str, call: Call) -> web.StreamResponse:
        """503, at a small part of the cost of what is let in."""
        response, failure = self._refusals.response(route.op, route.fails_as, why, call)
        loop = asyncio.get_running_loop()
        loop.call_soon(self.metrics.observe, route.op, response.status, 0.0, failure)
        self._refusals.count(route.op, lambda: loop.call_later(REFUSALS_TOLD_S, self._tell_refusals))
        return response

    def _tell_refusals(self) -> None:
        limits = {"changes": self.admission.changes.limit, "reads": self.admission.reads.limit}
        self.log.warning("requests_refused", refused=self._refusals.told(), limits=limits)

    async def _translated(self, route: Route, request: web.Request, call: Call) -> web.StreamResponse | Parts:
        """The border to aiohttp: its own refusals become ours."""
        try:
            return await route.handler(request, call)
        except web.HTTPRequestEntityTooLarge as refusal:
            raise BodyTooLarge(f"the body may have {self.body_bytes_max} bytes") from refusal
        except web.HTTPException as refusal:
            raise CallerError(refusal.reason) from refusal
        except (HttpProcessingError, web.RequestPayloadError) as broken:
            raise CallerError("the body does not come as its headers say") from broken
        except ConnectionError as gone:
            if request.transport is not None:
                raise
            raise ConnectionLost("the caller hung up") from gone

    def _record(
        self,
        op: str,
        request: web.BaseRequest,
        call: Call,
        status: int,
        failure: chain.Problem | None,
        seconds: float,
    ) -> None:
        """One wide event and its metrics for the request. The query stays out: it may carry secrets."""
        self.metrics.observe(op, status, seconds, failure)
        told = {"code": failure.code, "fault": failure.fault, "outcome": failure.outcome} if failure else {}
        self.log.info(
            "request",
            op=op,
            method=request.method[:20],
            path=request.path[:200],
            status=status,
            ms=round(seconds * 1000, 2),
            request_id=call.request_id,
            trace_id=call.trace_id,
            **told,
        )

    def _log_defect(self, error: DiegoError) -> None:
        if isinstance(error.root, InternalError):
            self.log.error("defect", error=repr(error.root), exc_info=error.root.__cause__)


HOP_SERVER = web.AppKey("hop_server", HopServer)


def _subject(request: web.Request) -> dict[str, str] | None:
    """What the path names, for the document of a failure that does not say it itself."""
    names = request.match_info
    if "process_guid" in names:
        index = {"index": names["index"]} if "index" in names else {}
        return {"kind": "lrp", "guid": names["process_guid"], **index}
    if "task_guid" in names:
        return {"kind": "task", "guid": names["task_guid"]}
    return {"kind": "cell", "cell_id": names["cell_id"]} if "cell_id" in names else None


def document(problem: chain.Problem, call: Call) -> web.Response:
    """The response that carries a failure document."""
    response = web.Response(status=problem.status, body=problem.encode(), content_type=chain.MEDIA_TYPE)
    response.headers.update(headers.identity(call))
    response.headers[headers.SERVER_TIMING] = headers.failure_timing(problem)
    if len(problem.chain) > 1:
        response.headers[headers.PROXY_STATUS] = headers.proxy_status(problem)
    if problem.retry_after_s is not None:
        response.headers["Retry-After"] = f"{min(RETRY_AFTER_S_MAX, max(1, ceil(problem.retry_after_s)))}"
    if problem.status == MethodNotAllowed.status and problem.evidence:
        response.headers["Allow"] = problem.evidence["allow"]
    return response


async def read_json(request: web.Request) -> bytes:
    """The request's body, declared as JSON. Raises UnsupportedMediaType or BodyTooLarge."""
    if request.content_type not in (JSON, "application/octet-stream"):
        raise UnsupportedMediaType(f"Content-Type is {request.content_type[:80]!r}")
    return await request.read()


def decode(kind: type[T], body: bytes) -> T:
    """`body` as a model; the errors of the wire become errors of the tree."""
    try:
        return wire.decode(kind, body)
    except wire.MalformedJSON as malformed:
        raise MalformedJSON(str(malformed)) from malformed
    except wire.InvalidFields:
        raise invalid_fields(bad_fields(kind, wire.parse(body))) from None


def decode_told(kind: type[T], body: bytes) -> T:
    """The same of what another process of ours says, as `telling.decode`; what is wrong is told as by `decode`."""
    try:
        return telling.decode(kind, body)
    except wire.MalformedJSON:
        return decode(kind, body)


def invalid_fields(errors: Sequence[FieldError]) -> InvalidSpec:
    """The refusal of a body, with every bad field; the detail names the first few."""
    told = ", ".join(error.pointer or "/" for error in errors[:5]) + (", ..." if len(errors) > 5 else "")
    return InvalidSpec(f"{len(errors)} invalid field(s): {told}", errors=[asdict(error) for error in errors])


def answer(value: object, status: int = 200, extra: dict[str, str] | None = None) -> web.Response:
    """A JSON answer of a model, or of a list of models."""
    return web.Response(status=status, body=wire.encode(value), content_type=JSON, headers=extra)


def found(value: T | None, missing: NotFound) -> T:
    """`value`, or `missing` raised when there is none."""
    if value is None:
        raise missing
    return value
