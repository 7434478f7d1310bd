"""`/v1/auctions`: what the auction would do."""

from __future__ import annotations

from aiohttp import web
from attrs import define

from bbs.api.desired_lrps import accepted
from bbs.auction.reasons import placement as told_placement
from bbs.placement import Placement
from diego_py.call import Call
from diego_py.errors import RequestFailed
from diego_py.http.server import Route, answer, decode, read_json
from diego_py.models.desired_lrp import DesiredLRPDefinition

DRY_RUN_INSTANCES_MAX = 1_000
"""A dry run of more instances shows these; it answers a question, it is no load test."""


@define
class Auctions:
    """Handlers of auctions."""

    placement: Placement

    def routes(self) -> list[Route]:
        path = "/v1/auctions/dry_run"
        return [Route("POST", path, "dry_run", self.dry_run, RequestFailed, takes=DesiredLRPDefinition)]

    async def dry_run(self, request: web.Request, call: Call) -> web.StreamResponse:
        """For each instance the cell that would get it and every cell's bid; nothing is stored or reserved."""
        definition = accepted(decode(DesiredLRPDefinition, await read_json(request)))
        count = min(definition.instances, DRY_RUN_INSTANCES_MAX)
        assignments = await self.placement.dry_run(call, definition, count)
        return answer(
            {
                "assignments": [
                    {
                        "index": assignment.demand.index,
                        "cell_id": assignment.cell_id,
                        "placement": told_placement(assignment.demand, assignment.bids),
                    }
                    for assignment in assignments
                ]
            }
        )
