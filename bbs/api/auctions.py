"""`/v1/auctions`: what the auction would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web
from attrs import define

from bbs.api.desired_lrps import accepted
from bbs.auction.cell_view import Assignment
from bbs.auction.reasons import Explanation
from bbs.placement import Placement
from diego_py.call import Call
from diego_py.chain import DOCUMENT_BYTES_MAX
from diego_py.errors import RequestFailed
from diego_py.http.server import Route, answer, decode, read_json
from diego_py.models.desired_lrp import DesiredLRPDefinition

DRY_RUN_INSTANCES_MAX = 250
"""A dry run of more instances shows these; it answers a question, it is no load test."""
EXPLAINED_MAX = 5
"""The first instances, and the first that finds no cell, come with what the cells say; the others say where they go."""


@define
class Auctions:
    """Handlers of auctions."""

    placement: Placement

    def routes(self) -> list[Route]:
        path = "/v1/auctions/dry_run"
        return [Route("POST", path, "dry_run", self.dry_run, RequestFailed, takes=DesiredLRPDefinition)]

    async def dry_run(self, request: web.Request, call: Call) -> web.StreamResponse:
        """For each instance the cell that would get it, and why; nothing is stored or reserved."""
        definition = accepted(decode(DesiredLRPDefinition, await read_json(request)))
        count = min(definition.instances, DRY_RUN_INSTANCES_MAX)
        rehearsed = await self.placement.dry_run(call, definition, count, EXPLAINED_MAX)
        return answer(document(rehearsed, definition.instances))


def document(rehearsed: Sequence[tuple[Assignment, Explanation | None]], wanted: int) -> dict[str, Any]:
    """The answer, at most 64 KiB: explanations but the first give way, then instances, the last before the others."""
    assignments = [_told(assignment, why) for assignment, why in rehearsed]
    explained = [told for told in assignments if "placement" in told]
    while True:
        told = {"instances": wanted, "left_out": wanted - len(assignments), "assignments": assignments}
        if len(msgspec.json.encode(told)) <= DOCUMENT_BYTES_MAX or not assignments:
            return told
        if len(explained) > 1:
            del explained.pop()["placement"]
        else:
            del assignments[len(assignments) // 2 :]


def _told(assignment: Assignment, why: Explanation | None) -> dict[str, Any]:
    told: dict[str, Any] = {"index": assignment.demand.index, "cell_id": assignment.cell_id}
    if assignment.score is not None:
        told["score"] = round(assignment.score, 4)
    if why is not None:
        told["placement"] = why.told()
    return told
