"""NDJSON that is sent as it comes. What fails on the way is its last line: a failure document instead of an item."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web
from attrs import define, field

from diego_py.call import Call
from diego_py.chain import Problem
from diego_py.errors import ConnectionLost, SlowReader
from diego_py.http import headers

NDJSON: Final = "application/x-ndjson"
STALL_S: Final = 4.0
"""How long the reader may take nothing. Less than Postgres lets a transaction be idle."""
LAST_LINE_S: Final = 10.0
"""How long the reader may take for the last line, when nothing else waits for it any more."""


@define
class LineStream:
    """The answer to one request, whose head has been sent."""

    response: web.StreamResponse
    _writing: asyncio.Task[None] | None = field(default=None, init=False)
    """The last write: a task of its own, which is never cancelled, for aiohttp writes nothing more after that."""

    @classmethod
    async def begin(cls, request: web.Request, call: Call, extra: Mapping[str, str]) -> LineStream:
        """Send the head: 200."""
        response = web.StreamResponse(headers={"Content-Type": NDJSON, **headers.identity(call), **extra})
        await response.prepare(request)
        stream = request[_UNDER_WAY] = cls(response)
        return stream

    async def write(self, lines: bytes, evidence: dict[str, Any]) -> None:
        """Send some, and wait until nearly all is taken. Raises SlowReader with `evidence`, ConnectionLost."""
        self._writing = asyncio.get_running_loop().create_task(self.response.write(lines))
        try:
            async with asyncio.timeout(STALL_S):
                await asyncio.shield(self._writing)
        except TimeoutError as stalled:
            raise SlowReader(f"the reader took nothing for {STALL_S:g} s", evidence=evidence) from stalled
        except ConnectionError as gone:
            raise ConnectionLost("the caller hung up") from gone

    async def settled(self) -> None:
        """The last write is over. Raises ConnectionError if it was in vain."""
        if self._writing is not None:
            await asyncio.shield(self._writing)

    async def end(self) -> None:
        """Say that this was all. Raises ConnectionLost."""
        try:
            await self.response.write_eof()
        except ConnectionError as gone:
            raise ConnectionLost("the caller hung up") from gone


_UNDER_WAY: Final = web.RequestKey("line_stream", LineStream)


async def ended_with(request: web.Request, failure: Problem) -> web.StreamResponse | None:
    """The stream that a request has under way, ended with a failure. None if there is none, or nobody reads it."""
    stream = request.get(_UNDER_WAY)
    if stream is None:
        return None
    try:
        async with asyncio.timeout(LAST_LINE_S):
            await stream.settled()
            await stream.response.write(failure.encode() + b"\n")
            await stream.response.write_eof()
    except (TimeoutError, ConnectionError):
        return None
    ended: web.StreamResponse = stream.response
    return ended
