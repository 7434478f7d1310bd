"""Egress rules of containers that run: changed where they are, each cell with an answer of its own.

One that no cell has yet is told with its claim, before its process begins; a change that comes later finds the claim.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from attrs import define

from bbs.cell_pool import CellPool
from bbs.outcome import InstanceOutcome
from diego_py.call import Call
from diego_py.errors import ContainerNotFound, DiegoError
from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.desired_lrp import DesiredLRP
from diego_py.models.work import EgressChange


@define
class LiveEgress:
    """Tells cells what their containers may reach from now on."""

    pool: CellPool

    async def apply(self, call: Call, desired: DesiredLRP, rows: Sequence[ActualLRP]) -> list[InstanceOutcome]:
        """Change all of them side by side; each returns an outcome and never raises. A repeat does it again."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._apply(call, desired, row)) for row in rows]
        return [task.result() for task in tasks]

    async def _apply(self, call: Call, desired: DesiredLRP, row: ActualLRP) -> InstanceOutcome:
        if row.cell_id is None or row.instance_guid is None:
            return InstanceOutcome(row)
        rules, version = desired.definition.egress_rules, desired.modification_tag.index
        change = EgressChange(egress_rules=rules, version=version)
        try:
            await self.pool.set_egress(call, row.cell_id, row.instance_guid, change)
        except DiegoError as error:
            if isinstance(error.root, ContainerNotFound):
                return InstanceOutcome(row)  # It ended meanwhile; what starts in its place asks what holds by then.
            return InstanceOutcome(row, error, row.cell_id, stopping=True)
        return InstanceOutcome(row)
