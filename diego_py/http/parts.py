"""Several things asked for in one request: each is a hop of its own, and answered in a line of its own once decided.

A line is a JSON object: `part` (its position in the request), and `given`, with `timing` (what Server-Timing says of an
answer of its own), or `failure`, its whole document. Lines come in the order in which they are decided.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec
from aiohttp import web
from attrs import frozen

from diego_py.call import Budget, Call
from diego_py.chain import Problem
from diego_py.errors import BadAnswer, Outcome
from diego_py.http import headers
from diego_py.service.clock import Clock

NDJSON = "application/x-ndjson"
LINE_BYTES_MAX = 1024 * 1024
"""Of an answer's line: a failure document has 64 KiB at most."""


@frozen
class Part:
    """One of the things that were asked for."""

    call: Call
    """With ids and budget of its own, in no hop yet."""
    work: Callable[[Call], Awaitable[object]]
    """Returns what is given as answer, as a model; raises how it failed."""


@frozen
class Parts:
    """What a route returns instead of an answer: the server answers each part when it is decided."""

    parts: Sequence[Part]


class Line(msgspec.Struct):
    """A line, as whoever asked reads it."""

    part: int
    given: msgspec.Raw = msgspec.Raw()
    timing: str = ""
    failure: dict[str, Any] | None = None


class Decide(Protocol):
    """Decides one part; returns its line and never raises."""

    async def __call__(self, position: int, part: Part) -> bytes: ...


def call_of(request_id: str, trace_id: str, budget_ms: float, clock: Clock) -> Call:
    """The call of a part, as the request describes it."""
    return Call(request_id, trace_id, Budget.of(budget_ms, clock), clock)


def given_line(position: int, given: bytes, timing: str) -> bytes:
    """The line of a part that was done."""
    return msgspec.json.encode({"part": position, "timing": timing, "given": msgspec.Raw(given)}) + b"\n"


def failed_line(position: int, failure: Problem) -> bytes:
    """The line of a part that failed."""
    return msgspec.json.encode({"part": position, "failure": msgspec.Raw(failure.encode())}) + b"\n"


async def answered(request: web.Request, call: Call, parts: Sequence[Part], decide: Decide) -> web.StreamResponse:
    """Decide all parts side by side and send each line when it is there; those that are there at once go at once.

    Who asked may hang up: the parts are decided all the same.
    """
    about = headers.identity(call)
    if len(parts) == 1:
        return web.Response(body=await decide(0, parts[0]), content_type=NDJSON, headers=about)
    response = web.StreamResponse(headers={"Content-Type": NDJSON, **about})
    lines: list[bytes] = []
    decided = asyncio.Event()

    async def one(position: int, part: Part) -> None:
        lines.append(await decide(position, part))
        decided.set()

    async with asyncio.TaskGroup() as group:
        for position, part in enumerate(parts):
            group.create_task(one(position, part))
        await _sent(request, response, len(parts), lines, decided)
    return response


async def _sent(
    request: web.Request, response: web.StreamResponse, count: int, lines: list[bytes], decided: asyncio.Event
) -> None:
    """Send lines until there were as many as this, or nobody reads them any more."""
    sent = 0
    try:
        while sent < count:
            await decided.wait()
            decided.clear()
            ready, lines[:] = lines[:], []
            sent += len(ready)
            if not response.prepared:
                await response.prepare(request)
            send = response.write if sent < count else response.write_eof
            await send(b"".join(ready))
    except ConnectionError:
        return  # whoever takes part is decided all the same


async def lines_of(chunks: AsyncIterator[bytes]) -> AsyncIterator[Line]:
    """The lines of an answer as they come. Raises BadAnswer for what is none."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for text in whole:
            try:
                yield _LINE.decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as malformed:
                raise BadAnswer("a line of the answer does not have the expected form", outcome=Outcome.UNKNOWN) from (
                    malformed
                )
        if len(rest) > LINE_BYTES_MAX:
            raise BadAnswer(f"a line of the answer is longer than {LINE_BYTES_MAX} bytes", outcome=Outcome.UNKNOWN)


_LINE = msgspec.json.Decoder(Line)

__all__ = ["Line", "Part", "Parts", "answered", "call_of", "failed_line", "given_line", "lines_of"]
