"""`/v1/claims`: the rows that a cell takes before it starts what it was sent."""

from __future__ import annotations

from aiohttp import web
from attrs import define, evolve

from bbs.lifecycle import Lifecycle
from bbs.store.attempts import Claim, Claimed
from diego_py import chain, telling, wire
from diego_py.call import Call
from diego_py.errors import (
    BudgetSpent,
    DatabaseConflict,
    DatabaseUnavailable,
    DiegoError,
    RequestFailed,
    Saturated,
    ShuttingDown,
)
from diego_py.http.server import JSON, Route, decode_told, invalid_fields, read_json
from diego_py.models.fields import INVALID, FieldError
from diego_py.models.work import (
    WORKS_MAX,
    ClaimGranted,
    ClaimResult,
    ClaimResults,
    Claims,
    InstanceClaim,
)

NOT_SAID = (DatabaseUnavailable, DatabaseConflict, Saturated, BudgetSpent, ShuttingDown)
"""Failures that no other claim would be spared, here: they say nothing about a row."""


@define
class ClaimRoutes:
    """The handler of claims."""

    lifecycle: Lifecycle

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/v1/claims",
                "claim_instance",
                self.claim,
                RequestFailed,
                counted=False,
                takes=Claims,
                gives=ClaimResults,
            )
        ]

    async def claim(self, request: web.Request, call: Call) -> web.StreamResponse:
        """A cell takes the rows that it was sent; one that waits for another instance by now is refused by itself.

        What Postgres fails is no answer to any of them: another BBS may be asked.
        """
        claims = decode_told(Claims, await read_json(request))
        if len(claims.instances) > WORKS_MAX:
            raise invalid_fields([FieldError("/instances", INVALID, f"at most {WORKS_MAX}")])
        outcomes = await self.lifecycle.claim_all(call, [_claim(claims, item) for item in claims.instances])
        for outcome in outcomes:
            if isinstance(outcome, DiegoError) and isinstance(outcome.root, NOT_SAID):
                raise outcome
        results = [
            _refused(call, item, outcome) if isinstance(outcome, DiegoError) else _granted(outcome)
            for item, outcome in zip(claims.instances, outcomes, strict=True)
        ]
        return web.Response(body=telling.encode(ClaimResults(results=tuple(results))), content_type=JSON)


def _claim(claims: Claims, item: InstanceClaim) -> Claim:
    return Claim(item.process_guid, item.index, item.instance_guid, claims.cell_id, claims.boot_id)


def _granted(claimed: Claimed) -> ClaimResult:
    """What the instance may reach may have changed since the work was sent."""
    reach = claimed.reach
    if reach is None or reach.revision != claimed.row.revision:
        return ClaimResult(granted=ClaimGranted())
    return ClaimResult(granted=ClaimGranted(egress=reach.egress))


def _refused(call: Call, item: InstanceClaim, error: DiegoError) -> ClaimResult:
    """The document of one claim, with the ids of its own request."""
    call = evolve(call, request_id=item.request_id, trace_id=item.trace_id)
    subject = {"kind": "lrp", "guid": item.process_guid, "index": item.index}
    document = chain.problem(call.left_with(error, RequestFailed), call, subject)
    return ClaimResult(failure=wire.parse(document.encode()))
