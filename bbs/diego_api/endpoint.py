"""One route of Diego's wire: POST, a message in, a message out; 200 also for what is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from aiohttp import web
from attrs import frozen
from google.protobuf.message import Message

from bbs.diego_api import codec
from bbs.diego_api.descriptors import MESSAGES
from bbs.diego_api.errors import NOT_READY, Refusal, refusal_of
from diego_py.call import Call
from diego_py.errors import DiegoError, RequestFailed
from diego_py.http.server import Route

PROTOBUF = "application/x-protobuf"
Handler = Callable[[Any, Call], Awaitable[Message | bytes | None]]
"""Takes the request's message and gives the response's, or what that is encoded; None: an empty one, which is success.

Raises DiegoError or Refusal.
"""


@frozen
class Endpoint:
    """Where an operation is, and its messages by Diego's names."""

    path: str
    op: str
    takes: str | None
    """None: whatever the body is."""
    gives: str
    handler: Handler

    def route(self, log: structlog.stdlib.BoundLogger) -> Route:
        """The endpoint as a route of a listener."""

        response = MESSAGES[self.gives]
        told_in_body = "error" in response.DESCRIPTOR.fields_by_name

        async def serve(request: web.Request, call: Call) -> web.StreamResponse:
            try:
                message = None if self.takes is None else codec.parse(self.takes, await request.read())
                answer = await self.handler(message, call)
                return _answer(response() if answer is None else answer)
            except Refusal as refused:
                refusal = refused
            except DiegoError as error:
                if isinstance(error.root, NOT_READY) or not told_in_body:
                    return web.Response(status=503)
                refusal = refusal_of(error)
            log.info("diego_refused", op=self.op, type=refusal.type.name, message=refusal.message[:500])
            told = {"type": refusal.type.value, "message": refusal.message}
            return _answer(response(error=told))

        return Route("POST", self.path, self.op, serve, RequestFailed)


def _answer(message: Message | bytes) -> web.Response:
    body = message if isinstance(message, bytes) else message.SerializeToString()
    return web.Response(body=body, content_type=PROTOBUF)
