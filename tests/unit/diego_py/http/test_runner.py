"""Also what is refused before any route is answered with a document: broken HTTP, unmet expectations, broken bodies."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from attrs import define, field

from diego_py.call import Call
from diego_py.chain import MEDIA_TYPE, rebuild
from diego_py.errors import Fault, RequestFailed
from diego_py.http.runner import while_there
from diego_py.http.server import Route, answer, read_json
from tests.unit.diego_py.http.serving import HOST, Answered, Served, serving

CANARY = b"canary-9e1d"


@define
class Echo:
    """Reads the body, and says when it began and ended to."""

    began: asyncio.Event = field(factory=asyncio.Event)
    ended: asyncio.Event = field(factory=asyncio.Event)

    async def echo(self, request: web.Request, call: Call) -> web.StreamResponse:
        self.began.set()
        try:
            return answer({"bytes": len(await read_json(request))})
        finally:
            self.ended.set()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def served(echo: Echo) -> AsyncIterator[Served]:
    async with serving([Route("POST", "/echo", "echo", echo.echo, RequestFailed)]) as listening:
        yield listening


def assert_refused(answered: Answered, status: int) -> None:
    document = answered.document
    assert (answered.status, document["status"]) == (status, status)
    assert {name.lower(): value for name, value in answered.headers.items()}["content-type"] == MEDIA_TYPE
    assert answered.headers["X-Request-Id"] == document["request_id"]
    assert [frame["hop"] for frame in document["chain"]] == ["bbs"]
    assert rebuild(document).fault is Fault.CALLER
    assert CANARY not in answered.body, "what the caller sent is not repeated: it may hold secrets"


HEAD = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
BROKEN = {
    "no method": b"HELLO\r\n\r\n",
    "unknown method": b"BREW /" + CANARY + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + CANARY,
    "strange version": b"GET /echo HTTP/9.x\r\nHost: x\r\n\r\n",
    "control characters in the path": b"GET /ec\x01ho HTTP/1.1\r\nHost: x\r\n\r\n",
    "no colon": b"GET /echo HTTP/1.1\r\nAuthorization " + CANARY + b"\r\n\r\n",
    "bad header name": b"GET /echo HTTP/1.1\r\nX (y): " + CANARY + b"\r\n\r\n",
    "NUL in a header": b"GET /echo HTTP/1.1\r\nHost: x\r\nX-Key: " + CANARY + b"\0\r\n\r\n",
    "long path": b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "long header": b"GET /echo HTTP/1.1\r\nHost: x\r\nCookie: " + CANARY * 2_000 + b"\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "length is no number": HEAD + b"Content-Length: many\r\n\r\n",
    "negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "unmet expectation": HEAD + b"Expect: a-miracle\r\nContent-Length: 2\r\n\r\n{}",
    "chunk size is no number": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "not gzip": HEAD + b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot gzip!",
}


@pytest.mark.parametrize("request_bytes", BROKEN.values(), ids=BROKEN)
async def test_broken_http_is_answered_with_a_document(served: Served, request_bytes: bytes) -> None:
    assert_refused(await served.send_raw(request_bytes), 400)
    (request,) = served.events("request")
    assert (request["status"], request["fault"]) == (400, "caller")
    assert not served.events("defect")
    assert CANARY.decode() not in served.log.getvalue()


async def test_an_expectation_of_no_path_is_refused_too(served: Served) -> None:
    wanted = b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: a-miracle\r\n\r\n"
    assert (await served.send_raw(wanted)).document["code"] in ("bad_request", "route_not_found")


async def test_continue_is_met(served: Served) -> None:
    answered = await served.send_raw(HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}")
    assert answered.status == 100
    assert answered.body.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_strange_but_valid_requests_are_answered_by_the_router(served: Served) -> None:
    asterisk = await served.send_raw(b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert asterisk.document["status"] in (404, 405)
    old = await served.send_raw(b"GET /livez HTTP/1.0\r\n\r\n")
    assert old.status == 200
    absolute = await served.send_raw(b"GET http://x/livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert absolute.status == 200


async def test_a_connection_that_turns_into_nonsense_is_answered_and_closed(served: Served) -> None:
    reader, writer = await asyncio.open_connection(HOST, served.port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    writer.write(b"HELLO\r\n\r\n")
    assert b'"code":"bad_request"' in await reader.read()
    writer.close()
    await writer.wait_closed()


async def test_a_caller_that_hangs_up_is_no_defect(served: Served, echo: Echo) -> None:
    _, writer = await asyncio.open_connection(HOST, served.port)
    writer.write(HEAD + b"Content-Length: 500\r\n\r\n{")
    await writer.drain()
    await echo.began.wait()
    writer.transport.abort()
    await echo.ended.wait()
    assert (await served.send("GET", "/livez")).status == 200
    assert not served.events("defect")
    assert served.events("request")[0]["code"] == "connection_lost"
    assert served.server.in_flight == 0


async def test_who_leaves_in_the_moment_of_the_end_disturbs_nobody() -> None:
    ended, wrong = asyncio.Event(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: wrong.append(context))

    async def leaving(request: web.Request, call: Call) -> web.StreamResponse:
        try:
            async with while_there(request):
                assert request.transport is not None
                request.transport.abort()
                await asyncio.sleep(0)  # It is gone now, and who wants to hear of that is about to be told.
            await asyncio.sleep(0)
        finally:
            ended.set()
        return answer({})

    async with serving([Route("GET", "/leave", "leave", leaving, RequestFailed)]) as listening:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await listening.send("GET", "/leave")
        await ended.wait()
    assert wrong == []
