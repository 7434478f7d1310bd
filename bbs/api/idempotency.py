"""Idempotency-Key: the same request sent again gets the answer of the first one, failures included."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web
from attrs import define, frozen

from bbs.lifecycle import Lifecycle
from bbs.outcome import unknown_unless_said
from bbs.store.idempotency import IdempotencyKey, StoredAnswer
from diego_py import chain
from diego_py.call import Call
from diego_py.errors import DiegoError, InvalidHeader
from diego_py.http import headers
from diego_py.http.server import document

_KEY = re.compile(r"[\x21-\x7e]{1,200}")
ROUTE_CHARACTERS_MAX = 500
STORE_BUDGET_MS = 5_000.0
"""Time to store an answer, also when the request's own time is spent."""
_KEPT_HEADERS = ("Content-Type", "Location", "ETag")


@frozen
class Before:
    """What is known of a key before the work begins."""

    answer: web.Response | None = None
    resume: bool = False
    """The effect of the first request is stored, and the process that worked on it died: go on from there."""


@define
class Idempotency:
    """Wraps a handler whose effect stores the key in its own transaction."""

    lifecycle: Lifecycle
    owner: str
    log: structlog.stdlib.BoundLogger

    def key_of(self, request: web.Request, body: bytes) -> IdempotencyKey | None:
        """The key of a request with the hash that tells whether a second one is the same. Raises InvalidHeader."""
        text = request.headers.get(headers.IDEMPOTENCY_KEY)
        if text is None:
            return None
        if not _KEY.fullmatch(text):
            raise InvalidHeader(f"{headers.IDEMPOTENCY_KEY} takes 1 to 200 printable ASCII characters without spaces")
        return IdempotencyKey(
            key=text,
            route=f"{request.method} {request.path_qs}"[:ROUTE_CHARACTERS_MAX],
            request_hash=hashlib.sha256(body).digest(),
            owner=f"{self.owner}:{secrets.token_hex(8)}",
        )

    async def before(self, call: Call, key: IdempotencyKey | None) -> Before:
        """What the first request with this key left. Raises IdempotencyInFlight or IdempotencyMismatch."""
        if key is None:
            return Before()
        replay = await self.lifecycle.replay(call, key)
        if replay.answer is None:
            return Before(resume=replay.resume)
        stored = replay.answer
        told = {**stored.headers, "Idempotent-Replayed": "true"}
        return Before(web.Response(status=stored.status, body=stored.body, headers=told))

    async def remember(
        self,
        call: Call,
        key: IdempotencyKey | None,
        fails_as: type[DiegoError],
        work: Callable[[], Awaitable[web.Response]],
    ) -> web.Response:
        """Do the work and store its answer, or its failure document, under the key."""
        if key is None:
            return await work()
        try:
            with unknown_unless_said():
                response = await work()
        except DiegoError as error:
            told = error if error.finished else call.left_with(error, fails_as)
            told.problem = told.problem or chain.problem(told, call)
            await self._store(call, key, document(told.problem, call))
            raise told from told.__cause__
        await self._store(call, key, response)
        return response

    async def _store(self, call: Call, key: IdempotencyKey, response: web.Response) -> None:
        """Keep the answer. That it cannot be kept makes it no other answer: whoever asks again goes on from there."""
        kept = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
        body = response.body if isinstance(response.body, bytes) else b""
        stored = StoredAnswer(status=response.status, headers=kept, body=body)
        call = call.with_budget(max(STORE_BUDGET_MS, call.remaining_ms()))
        try:
            await self.lifecycle.answered(call, key, stored)
        except DiegoError as unstored:
            self.log.error("answer_not_stored", route=key.route, status=stored.status, code=unstored.root.code)
