"""Every answer that is no success is a document with a chain and a request id, whoever refused and why."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import attrs
import pytest
from aiohttp import web
from msgspec import convert

from diego_py.call import Call
from diego_py.chain import DOCUMENT_BYTES_MAX, MEDIA_TYPE, problem, rebuild
from diego_py.errors import (
    DesiredLRPNotFound,
    DesireFailed,
    DiegoError,
    Fault,
    Frame,
    InvalidHeader,
    NoCellFits,
    Outcome,
    PlacementFailed,
    RequestFailed,
    Saturated,
)
from diego_py.http.server import Route, answer, decode, found, read_json
from tests.unit.diego_py.http.serving import BODY_BYTES_MAX, IN_FLIGHT_MAX, Answered, Served, serving
from tests.unit.diego_py.http.structured_list import read_list

CANARY = "canary-77aa"
JSON = "application/json"


@attrs.frozen(kw_only=True)
class Thing:
    name: str
    size: int = 0


@attrs.define
class Handlers:
    """What the routes under test do."""

    release: asyncio.Event = attrs.field(factory=asyncio.Event)
    entered: asyncio.Semaphore = attrs.field(factory=lambda: asyncio.Semaphore(0))
    calls: list[Call] = attrs.field(factory=list)

    async def make(self, request: web.Request, call: Call) -> web.StreamResponse:
        return answer(decode(Thing, await read_json(request)), 201)

    async def get(self, request: web.Request, call: Call) -> web.StreamResponse:
        self.calls.append(call)
        return answer(found(None if request.match_info["name"] == "gone" else Thing(name="x"), missing()))

    async def wait(self, request: web.Request, call: Call) -> web.StreamResponse:
        self.entered.release()
        await self.release.wait()
        return answer(Thing(name="x"))

    async def defect(self, request: web.Request, call: Call) -> web.StreamResponse:
        raise KeyError(CANARY)

    async def place(self, request: web.Request, call: Call) -> web.StreamResponse:
        with call.hop("auction", "bbs-1", "place web/0", PlacementFailed):
            raise NoCellFits("no room", placement={"cells": 0}, retry_after_s=2.4)

    async def store(self, request: web.Request, call: Call) -> web.StreamResponse:
        error = call.framed(DesireFailed("desire web", outcome=Outcome.PARTIAL))
        error.problem = attrs.evolve(problem(error, call), instance="/v1/failures/7")
        raise error

    async def relay(self, request: web.Request, call: Call) -> web.StreamResponse:
        with pytest.raises(DiegoError) as caught, call.hop("rep", "cell-1", "run_instance", RequestFailed):
            raise Saturated("full")
        told: DiegoError = rebuild(decoded(problem(caught.value, call).encode()))
        raise told

    async def stream(self, request: web.Request, call: Call) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"the beginning\n")
        raise RequestFailed("go on")

    async def conflict(self, request: web.Request, call: Call) -> web.StreamResponse:
        raise web.HTTPConflict(reason="aiohttp's own")

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/things", "make_thing", self.make, RequestFailed),
            Route("GET", "/things/{name}", "get_thing", self.get, RequestFailed),
            Route("DELETE", "/things/{name}", "delete_thing", self.get, RequestFailed),
            Route("GET", "/wait", "wait", self.wait, RequestFailed),
            Route("GET", "/uncounted", "uncounted", self.get_uncounted, RequestFailed, counted=False),
            Route("GET", "/light/{name}", "light", self.light, RequestFailed, counted=False, light=True),
            Route("GET", "/defect", "defect", self.defect, RequestFailed),
            Route("GET", "/place", "place", self.place, DesireFailed),
            Route("GET", "/store", "store", self.store, DesireFailed),
            Route("GET", "/relay", "relay", self.relay, DesireFailed),
            Route("GET", "/stream", "stream", self.stream, DesireFailed),
            Route("GET", "/conflict", "conflict", self.conflict, DesireFailed),
        ]

    async def get_uncounted(self, request: web.Request, call: Call) -> web.StreamResponse:
        return answer(Thing(name="x"))

    async def light(self, request: web.Request, call: Call) -> web.StreamResponse:
        self.calls.append(call)
        if request.match_info["name"] == "defect":
            raise KeyError(CANARY)
        return await self.get(request, call)


def missing() -> DesiredLRPNotFound:
    return DesiredLRPNotFound("no thing has this name")


def decoded(body: bytes) -> dict[str, object]:
    return Answered(0, {}, body).document


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture
async def served(handlers: Handlers) -> AsyncIterator[Served]:
    async with serving(handlers.routes()) as listening:
        yield listening


def problem_of(answered: Answered) -> Frame:
    """The frame of a refusal, without what is its own."""
    frame: Frame = convert(answered.document["chain"][0], Frame)
    assert frame.started_at.endswith("Z")
    return attrs.evolve(frame, started_at="")


def assert_document(answered: Answered, status: int, code: str) -> DiegoError:
    """The answer is a failure document that agrees with its own headers; gives the chain it describes."""
    assert answered.status == status, answered.body
    assert answered.headers["Content-Type"].partition(";")[0] == MEDIA_TYPE
    document = answered.document
    assert (document["status"], document["code"], document["type"]) == (status, code, f"/errors/{code}")
    assert len(document["chain"]) >= 1
    assert (document["chain"][0]["hop"], document["chain"][0]["id"]) == ("bbs", "bbs-1")
    assert document["request_id"]
    assert answered.headers["X-Request-Id"] == document["request_id"]
    assert document["trace_id"] in answered.headers["traceparent"]
    assert answered.headers["Server-Timing"].startswith("bbs;dur=")
    assert ("Proxy-Status" in answered.headers) is (len(document["chain"]) > 1)
    assert len(read_list(answered.headers.get("Proxy-Status", ""))) == len(document["chain"]) - 1
    assert ("Retry-After" in answered.headers) is ("retry_after_s" in document)
    assert len(answered.body) <= DOCUMENT_BYTES_MAX
    return rebuild(document)


REFUSED_BY_ROUTER = [
    ("GET", "/nothing", 404, "route_not_found"),
    ("POST", "/", 404, "route_not_found"),
    ("GET", "/things/a/b", 404, "route_not_found"),
    ("GET", "/%00%0d%0a", 404, "route_not_found"),
    ("PUT", "/things", 405, "method_not_allowed"),
    ("OPTIONS", "/things/x", 405, "method_not_allowed"),
    ("PATCH", "/livez", 405, "method_not_allowed"),
    ("TRACE", "/things", 405, "method_not_allowed"),
]


@pytest.mark.parametrize(("method", "path", "status", "code"), REFUSED_BY_ROUTER)
async def test_what_the_router_refuses(served: Served, method: str, path: str, status: int, code: str) -> None:
    answered = await served.send(method, path, X_Request_Id="mine")
    assert_document(answered, status, code)
    assert answered.document["request_id"] == "mine"


async def test_a_wrong_method_is_told_the_right_ones(served: Served) -> None:
    answered = await served.send("PUT", "/things/x")
    assert_document(answered, 405, "method_not_allowed")
    assert answered.headers["Allow"] == "DELETE, GET"


async def test_head_has_the_head_of_the_document(served: Served) -> None:
    answered = await served.send("HEAD", "/things/x")
    assert (answered.status, answered.body) == (405, b"")
    assert answered.headers["Content-Type"] == MEDIA_TYPE
    assert answered.headers["X-Request-Id"]
    assert answered.headers["Allow"] == "DELETE, GET"
    assert (await served.send("HEAD", "/nothing")).status == 404


BODIES = [
    (b"{", JSON, 400, "malformed_json"),
    (b"", JSON, 400, "malformed_json"),
    (b'{"name": "\xff"}', JSON, 400, "malformed_json"),
    (b'{"name": "a", "name": "b"}', JSON, 400, "malformed_json"),
    (b'{"name": NaN}', JSON, 400, "malformed_json"),
    (b"[" * 900, JSON, 400, "malformed_json"),
    (b"[]", JSON, 422, "invalid_spec"),
    (b"{}", JSON, 422, "invalid_spec"),
    (b'{"name": 1}', JSON, 422, "invalid_spec"),
    (b'{"name": "a", "size": "big"}', JSON, 422, "invalid_spec"),
    (b'{"name": "a", "colour": "red"}', JSON, 422, "invalid_spec"),
    (b'{"name": "a"}', "text/plain", 415, "unsupported_media_type"),
    (b"<a/>", "application/xml; charset=utf-8", 415, "unsupported_media_type"),
    (b"x" * (BODY_BYTES_MAX + 1), JSON, 413, "body_too_large"),
    (b"x" * 1_000_000, JSON, 413, "body_too_large"),
]


@pytest.mark.parametrize(("body", "media_type", "status", "code"), BODIES, ids=lambda value: str(value)[:20])
async def test_bodies_that_are_refused(served: Served, body: bytes, media_type: str, status: int, code: str) -> None:
    error = assert_document(await served.send("POST", "/things", body, Content_Type=media_type), status, code)
    assert error.outcome is Outcome.NOT_STARTED
    assert error.fault is Fault.CALLER


async def test_every_invalid_field_is_named(served: Served) -> None:
    answered = await served.send("POST", "/things", b'{"size": "big", "colour": 1}', Content_Type=JSON)
    assert_document(answered, 422, "invalid_spec")
    assert {error["pointer"] for error in answered.document["errors"]} == {"/name", "/size", "/colour"}


async def test_a_good_body_is_taken(served: Served) -> None:
    answered = await served.send("POST", "/things", b'{"name": "a"}', Content_Type="application/json; charset=utf-8")
    assert (answered.status, answered.document) == (201, {"name": "a", "size": 0})


@pytest.mark.parametrize("budget", ["", "soon", "nan", "1e3", "-inf", "99999999", "1_000"])
async def test_a_budget_that_is_none_is_refused(served: Served, budget: str) -> None:
    assert_document(await served.send("GET", "/things/x", X_Budget_Ms=budget), 400, "invalid_parameter")


@pytest.mark.parametrize("budget", ["0", "-5"])
async def test_a_spent_budget_is_refused_before_anything_is_done(
    served: Served, handlers: Handlers, budget: str
) -> None:
    error = assert_document(await served.send("GET", "/things/x", X_Budget_Ms=budget), 504, "budget_spent")
    assert error.outcome is Outcome.NOT_STARTED
    assert not handlers.calls


async def test_a_handler_gets_the_budget_and_the_ids(served: Served, handlers: Handlers) -> None:
    answered = await served.send("GET", "/things/x", X_Budget_Ms="800", X_Request_Id="mine")
    assert answered.status == 200
    assert answered.headers["X-Request-Id"] == "mine"
    assert answered.headers["Server-Timing"].startswith("bbs;dur=")
    (call,) = handlers.calls
    assert call.request_id == "mine"
    assert call.budget.total_ms == 800
    assert call.remaining_ms() <= 800
    await served.send("GET", "/things/x")
    assert handlers.calls[1].budget.total_ms == 5_000


async def test_what_is_not_there_is_a_404(served: Served) -> None:
    error = assert_document(await served.send("GET", "/things/gone"), 404, "desired_lrp_not_found")
    assert type(error) is DesiredLRPNotFound


async def test_a_defect_is_a_500_that_tells_nothing_of_our_insides(served: Served) -> None:
    answered = await served.send("GET", "/defect", Accept="text/html")
    assert_document(answered, 500, "internal")
    assert answered.document["detail"] == "defect: unexpected KeyError"
    assert answered.document["outcome"] == "unknown"
    for inside in (b"Traceback", b".py", CANARY.encode()):
        assert inside not in answered.body
    (event,) = served.events("defect")
    assert CANARY in event["exception"]
    (request,) = served.events("request")
    assert (request["status"], request["code"], request["fault"]) == (500, "internal", "platform")


async def test_a_failure_below_carries_its_chain(served: Served) -> None:
    answered = await served.send("GET", "/place")
    error = assert_document(answered, 503, "auction.no_cell_fits")
    assert [frame["hop"] for frame in answered.document["chain"]] == ["bbs", "auction"]
    assert error.find(NoCellFits) is not None
    assert answered.headers["Retry-After"] == "3"
    assert answered.document["placement"] == {"cells": 0}


async def test_what_was_stored_is_answered_as_it_is(served: Served) -> None:
    answered = await served.send("GET", "/store")
    assert_document(answered, 500, "bbs.desire_failed")
    assert answered.document["instance"] == "/v1/failures/7"
    assert len(answered.document["chain"]) == 1


async def test_a_document_from_below_is_passed_on_with_our_frame(served: Served) -> None:
    answered = await served.send("GET", "/relay")
    assert_document(answered, 503, "saturated")
    assert [frame["hop"] for frame in answered.document["chain"]] == ["bbs", "rep"]


async def test_a_stream_that_fails_half_way_is_cut_off(served: Served) -> None:
    async with served.session.get(served.url + "/stream") as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    (request,) = served.events("request")
    assert request["code"] == "bbs.request_failed"


async def test_aiohttps_own_refusals_are_translated(served: Served) -> None:
    assert_document(await served.send("GET", "/conflict"), 400, "bad_request")


async def test_more_requests_than_it_may_are_refused_before_anything_is_done(
    served: Served, handlers: Handlers
) -> None:
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(served.send("GET", "/wait")) for _ in range(IN_FLIGHT_MAX)]
        for _ in waiting:
            await handlers.entered.acquire()
        refused = await served.send("GET", "/things/x")
        uncounted = await served.send("GET", "/uncounted")
        probe = await served.send("GET", "/livez")
        unknown = await served.send("GET", "/nothing")
        handlers.release.set()
    error = assert_document(refused, 503, "saturated")
    assert error.outcome is Outcome.NOT_STARTED
    assert refused.headers["Retry-After"] == "1"
    assert not handlers.calls
    assert (uncounted.status, probe.status, unknown.status) == (200, 200, 404)
    assert [task.result().status for task in waiting] == [200] * IN_FLIGHT_MAX
    assert (await served.send("GET", "/things/x")).status == 200
    assert served.server.in_flight == 0


async def test_while_it_is_crowded_only_what_begins_nothing_is_answered(served: Served, handlers: Handlers) -> None:
    served.server.crowded = lambda: "too much is under way"
    refused = await served.send("POST", "/things", b'{"name": "a"}', Content_Type=JSON)
    error = assert_document(refused, 503, "saturated")
    assert (error.outcome, error.message) == (Outcome.NOT_STARTED, "too much is under way")
    assert refused.headers["Retry-After"] == "1"
    assert not handlers.calls
    assert (await served.send("GET", "/things/x")).status == 200
    served.server.crowded = lambda: None
    assert (await served.send("POST", "/things", b'{"name": "a"}', Content_Type=JSON)).status == 201


@pytest.mark.parametrize(("method", "gate"), [("POST", "changes"), ("GET", "reads")])
async def test_a_full_gate_refuses_its_own_kind_at_once_and_nothing_that_is_not_counted(
    served: Served, handlers: Handlers, method: str, gate: str
) -> None:
    path = {"POST": "/things", "GET": "/things/x"}
    getattr(served.server.admission, gate).limit = 0
    other = "GET" if method == "POST" else "POST"
    refused = await served.send(method, path[method], b"no json is ever read", X_Request_Id="mine-1")
    again = await served.send(method, path[method], X_Request_Id="mine-2")
    for number, answered in enumerate((refused, again), 1):
        error = assert_document(answered, 503, "saturated")
        assert error.outcome is Outcome.NOT_STARTED
        assert (answered.headers["Retry-After"], answered.headers["X-Request-Id"]) == ("1", f"mine-{number}")
        assert attrs.asdict(problem_of(answered)) == attrs.asdict(problem_of(refused))
    assert not handlers.calls
    assert (await served.send(other, path[other], b'{"name": "a"}', Content_Type=JSON)).status in (200, 201)
    assert (await served.send("GET", "/uncounted")).status == 200
    assert (await served.send("GET", "/livez")).status == 200
    getattr(served.server.admission, gate).limit = 512
    assert (await served.send(method, path[method], b'{"name": "a"}', Content_Type=JSON)).status in (200, 201)
    assert served.server.admission.changes.under_way == served.server.admission.reads.under_way == 0


async def test_refusals_are_one_event_a_second(served: Served) -> None:
    served.server.admission.changes.limit = 0
    for _ in range(3):
        await served.send("POST", "/things")
    async with asyncio.timeout(30):
        while not served.events("requests_refused"):  # noqa: ASYNC110 - a log has no event for it
            await asyncio.sleep(0.02)
    (told,) = served.events("requests_refused")
    assert (told["refused"], told["limits"]["changes"]) == ({"make_thing": 3}, 0)
    assert served.events("request") == []
    text = (await served.send("GET", "/metrics")).body.decode()
    assert 'http_requests_total{op="make_thing",status="503"} 3.0' in text


async def test_the_metrics_count_by_operation_code_and_fault(served: Served) -> None:
    await served.send("GET", "/defect")
    await served.send("GET", "/nothing/at/all")
    text = (await served.send("GET", "/metrics")).body.decode()
    assert 'http_failures_total{code="internal",fault="platform",op="defect"} 1.0' in text
    assert 'http_failures_total{code="route_not_found",fault="caller",op="route"} 1.0' in text
    assert "/nothing" not in text


async def test_a_light_answer_is_only_counted(served: Served, handlers: Handlers) -> None:
    given = await served.send("GET", "/light/x", X_Budget_Ms="700", X_Request_Id="r-1")
    assert (given.status, given.document["name"]) == (200, "x")
    assert "X-Request-Id" not in given.headers
    assert 0 < handlers.calls[0].remaining_ms() <= 700
    assert served.events("request") == []
    metrics = (await served.send("GET", "/metrics")).body.decode()
    assert 'http_requests_total{op="light",status="200"} 1.0' in metrics


@pytest.mark.parametrize(
    ("name", "budget", "status", "code"),
    [
        ("gone", "700", 404, DesiredLRPNotFound.code),
        ("defect", "700", 500, "internal"),
        ("x", "soon", 400, InvalidHeader.code),
    ],
)
async def test_a_light_route_fails_as_every_other_does(
    served: Served, name: str, budget: str, status: int, code: str
) -> None:
    given = await served.send("GET", f"/light/{name}", X_Budget_Ms=budget, X_Request_Id="r-1")
    assert (given.status, given.document["code"], given.document["request_id"]) == (status, code, "r-1")
    assert given.document["chain"][0]["op"] == "light"
    assert CANARY not in given.body.decode()
    (event,) = served.events("request")
    assert (event["status"], event["request_id"]) == (status, "r-1")
