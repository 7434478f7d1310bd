"""A stream of lines that fails says so in its last line; a reader that does not read holds nothing for long."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import attrs
import pytest
from aiohttp import web

from diego_py.call import Call
from diego_py.errors import ConnectionLost, DatabaseUnavailable, DiegoError, RequestFailed, SlowReader
from diego_py.http import line_stream
from diego_py.http.line_stream import LineStream
from diego_py.http.server import Route
from tests.chain.awaited import until_true
from tests.unit.diego_py.http.serving import HOST, Served, serving

MANY = b'{"a": 1}\n' * 20_000
SO_FAR = {"rows": 7, "cursor": "x"}


@attrs.define
class Handlers:
    """What the routes under test do."""

    failed: list[DiegoError] = attrs.field(factory=list)

    async def some(self, request: web.Request, call: Call) -> web.StreamResponse:
        stream = await LineStream.begin(request, call, {"ETag": '"1"'})
        await stream.write(b'{"a": 1}\n', SO_FAR)
        await stream.end()
        return stream.response

    async def broken(self, request: web.Request, call: Call) -> web.StreamResponse:
        stream = await LineStream.begin(request, call, {})
        await stream.write(b'{"a": 1}\n', SO_FAR)
        raise DatabaseUnavailable("list: the connection to Postgres was lost")

    async def endless(self, request: web.Request, call: Call) -> web.StreamResponse:
        stream = await LineStream.begin(request, call, {})
        try:
            while True:
                await stream.write(MANY, SO_FAR)
        except DiegoError as error:
            self.failed.append(error)
            raise

    def routes(self) -> list[Route]:
        return [
            Route("GET", f"/{name}", name, getattr(self, name), RequestFailed) for name in ("some", "broken", "endless")
        ]


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture
async def served(handlers: Handlers) -> AsyncIterator[Served]:
    async with serving(handlers.routes()) as served:
        yield served


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_stream, "STALL_S", 0.1)
    monkeypatch.setattr(line_stream, "LAST_LINE_S", 0.5)


async def test_lines_come_with_the_headers_of_every_answer(served: Served) -> None:
    told = await served.send("GET", "/some", traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
    assert (told.status, told.body, told.headers["ETag"]) == (200, b'{"a": 1}\n', '"1"')
    assert told.headers["Content-Type"] == line_stream.NDJSON
    assert "a" * 32 in told.headers["traceparent"]


async def test_what_fails_on_the_way_is_the_last_line(served: Served) -> None:
    told = await served.send("GET", "/broken")
    first, last = told.body.splitlines()
    assert (told.status, json.loads(first)) == (200, {"a": 1})
    document = json.loads(last)
    assert (document["code"], document["status"]) == ("database_unavailable", 503)
    assert [frame["hop"] for frame in document["chain"]] == ["bbs"]
    assert (await served.send("GET", "/some")).status == 200
    (event,) = [event for event in served.events("request") if event["op"] == "broken"]
    assert (event["status"], event["code"]) == (503, "database_unavailable")


async def test_who_reads_nothing_is_told_so_when_he_reads_again(
    served: Served, handlers: Handlers, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_stream, "LAST_LINE_S", 20.0)
    reader, writer = await ask(served, "/endless")
    await until_true("the stream was given up", lambda: bool(handlers.failed))
    (failed,) = handlers.failed
    assert isinstance(failed, SlowReader)
    body = await reader.read()
    last = next(line for line in reversed(body.split(b"\n")) if line.startswith(b'{"type"'))
    document = json.loads(last)
    assert (document["code"], document["evidence"], document["fault"]) == ("slow_reader", SO_FAR, "caller")
    assert body.endswith(b"\r\n0\r\n\r\n"), "it is a whole answer"
    writer.close()


async def test_who_never_reads_is_cut_off(served: Served, handlers: Handlers, impatient: None) -> None:
    reader, writer = await ask(served, "/endless")
    await until_true("the request is over", lambda: bool(served.events("request")))
    (event,) = served.events("request")
    assert event["code"] == "slow_reader"
    with contextlib.suppress(ConnectionError):
        assert not (await reader.read()).endswith(b"0\r\n\r\n"), "the body has no end"
    writer.close()


async def test_who_hangs_up_ends_the_stream(served: Served, handlers: Handlers) -> None:
    reader, writer = await ask(served, "/endless")
    await reader.read(1_000)
    writer.transport.abort()
    await until_true("the stream has ended", lambda: bool(handlers.failed))
    assert isinstance(handlers.failed[0], ConnectionLost)


async def ask(served: Served, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request, and read nothing yet: the stream stands still as soon as the buffers of the kernel are full."""
    reader, writer = await asyncio.open_connection(HOST, served.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    await writer.drain()
    return reader, writer
