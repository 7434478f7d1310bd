"""A check answers; it never raises for what is unhealthy."""

import asyncio
from collections.abc import AsyncIterator
from itertools import islice

import pytest
from aiohttp import web

from cells.executor.checks import pace
from cells.executor.checks.prober import Prober
from cells.executor.checks.result import CheckResult
from cells.garden.spec import Container, ContainerSpec
from diego_py.errors import DiegoError, ExecNotFound
from diego_py.models.checks import Check, CommandCheck, HTTPCheck, TCPCheck
from tests.fakes.cell import call
from tests.fakes.garden import FakeGarden


@pytest.fixture
async def container() -> AsyncIterator[tuple[FakeGarden, Prober, Container]]:
    garden = FakeGarden()
    made = await garden.create(call(), ContainerSpec("h", "preloaded:base", "/bin/sh", ("-c", "sleep 1")))
    await garden.run(call(), "h")
    prober = Prober(garden)
    yield garden, prober, made
    await prober.stop()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    seen: list[str] = []

    async def serve(request: web.Request) -> web.Response:
        seen.append(request.headers["User-Agent"])
        if request.path == "/slow":
            await asyncio.Event().wait()
        if request.path == "/away":
            raise web.HTTPFound("/")
        return web.Response(status=int(request.path.strip("/") or 200))

    application = web.Application()
    application.router.add_get("/{rest:.*}", serve)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()
    assert set(seen) <= {"diego-healthcheck"}


async def probe(container: tuple[FakeGarden, Prober, Container], check: Check) -> CheckResult:
    _, prober, made = container
    return await prober.probe(call(), made, check)


@pytest.mark.parametrize(
    ("path", "ok", "answer"),
    [
        ("/", True, "status 200"),
        ("", True, "status 200"),
        ("204", False, "status 204"),
        ("/503", False, "status 503"),
        ("/away", False, "status 302"),
        ("/slow", False, "no answer within 50 ms"),
    ],
)
async def test_http(
    container: tuple[FakeGarden, Prober, Container], port: int, path: str, ok: bool, answer: str
) -> None:
    result = await probe(container, Check(http=HTTPCheck(port=port, path=path, request_timeout_ms=50)))
    assert (result.kind, result.ok, result.answer) == ("http", ok, answer)


async def test_http_nobody_listens(container: tuple[FakeGarden, Prober, Container]) -> None:
    result = await probe(container, Check(http=HTTPCheck(port=1)))
    assert (result.ok, result.answer) == (False, "connect: Connection refused")
    assert result.target == "http://127.0.0.1:1/"


async def test_http_something_else_listens(container: tuple[FakeGarden, Prober, Container]) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    result = await probe(container, Check(http=HTTPCheck(port=server.sockets[0].getsockname()[1])))
    assert not result.ok
    assert result.answer.startswith("no HTTP answer")
    server.close()
    await server.wait_closed()


async def test_tcp(container: tuple[FakeGarden, Prober, Container], port: int) -> None:
    assert (await probe(container, Check(tcp=TCPCheck(port=port)))).ok
    refused = await probe(container, Check(tcp=TCPCheck(port=1)))
    assert (refused.ok, refused.answer, refused.target) == (False, "connect: Connection refused", "127.0.0.1:1")


@pytest.mark.parametrize(
    ("script", "ok", "answer"),
    [
        ("echo fine; exit 0", True, "fine"),
        ("echo bad; exit 2", False, "exited with status 2; output: bad"),
        ("sleep 9", False, "not done within 20 ms; output: "),
    ],
)
async def test_command(container: tuple[FakeGarden, Prober, Container], script: str, ok: bool, answer: str) -> None:
    check = CommandCheck(path="/bin/sh", args=("-c", script), user="root", timeout_ms=20)
    result = await probe(container, Check(command=check))
    assert (result.ok, result.answer, result.ran) == (ok, answer, True)


@pytest.mark.parametrize(("failure", "ran"), [(ExecNotFound("find it"), True), (DiegoError("no memory"), False)])
async def test_command_that_cannot_run(
    container: tuple[FakeGarden, Prober, Container], failure: DiegoError, ran: bool
) -> None:
    container[0].failures["exec"] = failure
    result = await probe(container, Check(command=CommandCheck(path="/bin/check", user="root")))
    assert (result.ok, result.ran) == (False, ran)
    assert result.answer == f"{failure.code}: {failure.message}"


async def test_all_must_pass(container: tuple[FakeGarden, Prober, Container], port: int) -> None:
    _, prober, made = container
    good, bad = Check(tcp=TCPCheck(port=port)), Check(tcp=TCPCheck(port=1))
    assert (await prober.probe_all(call(), made, [good, good])).ok
    assert not (await prober.probe_all(call(), made, [good, bad, good])).ok


def test_startup_pace() -> None:
    intervals = list(islice(pace.startup_intervals_s(1.0), 30))
    assert intervals[0] == 0.05
    assert intervals == sorted(intervals)
    assert intervals[-1] == 1.0
    elapsed = 0.0
    for interval in intervals:
        assert interval <= max(0.05, 0.05 + elapsed * 0.25)
        elapsed += interval
    assert next(pace.startup_intervals_s(0.01)) == 0.01


def test_liveness_pace() -> None:
    assert pace.liveness_interval_s(TCPCheck(port=1), 30.0) == 30.0
    assert pace.liveness_interval_s(TCPCheck(port=1, interval_ms=500), 30.0) == 0.5
