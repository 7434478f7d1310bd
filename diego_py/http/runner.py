"""Runs an application so that also what aiohttp refuses by itself, before any route, is answered with a document.

That is what is no HTTP at all (aiohttp says 400 in plain text) and an Expect header that nobody meets (417). And so
that an answer without an end learns that nobody reads it any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from diego_py.errors import CallerError, DiegoError, InternalError
from diego_py.http.server import HOP_SERVER, HopServer


class DocumentRunner(web.AppRunner):
    """Takes the place of web.AppRunner for an application of HopServer.application."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(made, self.app[HOP_SERVER], self._kwargs)


class _Server(web.Server):
    """Makes the protocol object of each connection."""

    def __init__(self, made: web.Server, hop_server: HopServer, options: dict[str, Any]) -> None:
        super().__init__(self._handle, request_factory=made.request_factory)
        self._inner = made.request_handler
        self._hop_server = hop_server
        self._options = options

    def __call__(self) -> RequestHandler:
        return _Connection(self, self._hop_server, self._options)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._inner(request)
        except web.HTTPException as refusal:
            return self._hop_server.refusal(request, CallerError(refusal.reason))


class _Connection(RequestHandler):
    """One connection; what its parser cannot read becomes a document."""

    def __init__(self, manager: web.Server, hop_server: HopServer, options: dict[str, Any]) -> None:
        super().__init__(manager, loop=asyncio.get_running_loop(), **options)
        self._hop_server = hop_server
        self.left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the connection is gone."""

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.left.set_result(None)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to `exc`; aiohttp's `message` stays out of it, since it quotes the request."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun already")
        response = self._hop_server.refusal(request, _refusal(status, exc))
        response.force_close()
        return response


@asynccontextmanager
async def while_there(request: web.Request) -> AsyncIterator[None]:
    """Leave the body when whoever asked has left: who does not write at the moment is told by nobody else."""
    connection = request.protocol
    assert isinstance(connection, _Connection)
    inside = True
    try:
        async with asyncio.timeout(None) as scope:

            def left(_: asyncio.Future[None]) -> None:
                if inside:  # It may be called a moment after it was taken back.
                    scope.reschedule(0)

            connection.left.add_done_callback(left)
            try:
                yield
            finally:
                inside = False
                connection.left.remove_done_callback(left)
    except TimeoutError:
        if not scope.expired():
            raise


def _refusal(status: int, exc: BaseException | None) -> DiegoError:
    error: DiegoError
    if status < 500:
        error = CallerError(f"the request is not valid HTTP: {type(exc).__name__}")
    else:
        error = InternalError(f"answer the request: unexpected {type(exc).__name__}")
    error.__cause__ = exc
    return error
