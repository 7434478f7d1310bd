"""Refusals of what is not even looked at: their documents are written once, and then only filled in.

A refusal must cost a small part of what it spares: under three times the load that is borne there are twice as many of
them as of anything else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from aiohttp import web
from attrs import define, evolve, field, frozen
from multidict import CIMultiDict

from diego_py import chain
from diego_py.call import Call
from diego_py.errors import DiegoError, Outcome, Saturated
from diego_py.http import headers

RETRY_AFTER_S = 1.0
KEPT_MAX = 256
"""Documents, one for each operation and reason."""
REQUEST_ID, TRACE_ID, NOW = "(request_id)", "(trace_id)", "(now)"


@frozen
class Draft:
    """A document with gaps."""

    problem: chain.Problem
    body: bytes
    timing: str

    def filled(self, call: Call) -> bytes:
        now = call.clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        body = self.body.replace(REQUEST_ID.encode(), call.request_id.encode())
        return body.replace(TRACE_ID.encode(), call.trace_id.encode()).replace(NOW.encode(), now.encode())


@define
class Refusals:
    """The documents of one listener."""

    hop: str
    id: str
    _drafts: dict[tuple[str, str], Draft] = field(factory=dict, init=False)
    _untold: Counter[str] = field(factory=Counter, init=False)

    def response(
        self, op: str, fails_as: type[DiegoError], why: str, call: Call
    ) -> tuple[web.Response, chain.Problem]:
        """503 with Retry-After, and its document but for ids and times."""
        draft = self._drafts.get((op, why)) or self._drafted(op, fails_as, why, call)
        given = CIMultiDict(headers.identity(call))
        given["Content-Type"] = chain.MEDIA_TYPE
        given["Retry-After"] = f"{RETRY_AFTER_S:.0f}"
        given[headers.SERVER_TIMING] = draft.timing
        return web.Response(status=draft.problem.status, body=draft.filled(call), headers=given), draft.problem

    def count(self, op: str, soon: Callable[[], object]) -> None:
        """One more to tell of; `soon` is called with the first one since `told`."""
        if not self._untold:
            soon()
        self._untold[op] += 1

    def told(self) -> dict[str, int]:
        """How many of each operation there were since it was asked last."""
        untold, self._untold = self._untold, Counter()
        return dict(untold)

    def _drafted(self, op: str, fails_as: type[DiegoError], why: str, call: Call) -> Draft:
        unnamed = evolve(call, request_id=REQUEST_ID, trace_id=TRACE_ID)
        try:
            with unnamed.hop(self.hop, self.id, op, fails_as):
                raise Saturated(why, outcome=Outcome.NOT_STARTED, retry_after_s=RETRY_AFTER_S)
        except DiegoError as refused:
            problem = chain.problem(refused, unnamed)
        frames = tuple(evolve(frame, started_at=NOW, elapsed_ms=0.0, self_ms=0.0) for frame in problem.chain)
        problem = evolve(problem, chain=frames, elapsed_ms=0.0)
        if len(self._drafts) >= KEPT_MAX:
            self._drafts.clear()
        draft = self._drafts[op, why] = Draft(problem, problem.encode(), headers.failure_timing(problem))
        return draft
