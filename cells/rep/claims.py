"""Claims of instances that are begun at the same moment go to the BBS in one request; each has a result of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from attrs import define, field

from cells.rep.bbs import BBS
from cells.rep.instances import Identity
from diego_py.call import Call
from diego_py.errors import DiegoError, Outcome, ShuttingDown, twin
from diego_py.models.identifiers import CellId
from diego_py.models.work import WORKS_MAX, ClaimGranted, Claims, InstanceClaim
from diego_py.service.run import OwnedTasks


@define(eq=False)
class _Asked:
    """One claim, and who waits for it."""

    call: Call
    claim: InstanceClaim
    granted: asyncio.Future[ClaimGranted]


@define
class ClaimsTogether:
    """Whoever claims in the same turn of the loop goes with the first one; nobody waits for a request under way."""

    cell_id: CellId
    boot_id: str
    bbs: BBS
    owned: OwnedTasks
    """Of its own: work that is finished while the process stops still claims."""
    _waiting: list[_Asked] = field(factory=list, init=False)

    async def claim(self, call: Call, identity: Identity) -> ClaimGranted:
        """Take the row of an instance. Raises ClaimRefused when it is not ours to take, ClaimLost when nobody said."""
        claim = InstanceClaim(
            process_guid=identity.process_guid,
            index=identity.index,
            instance_guid=identity.instance_guid,
            request_id=call.request_id,
            trace_id=call.trace_id,
        )
        asked = _Asked(call, claim, asyncio.get_running_loop().create_future())
        if not self._waiting:
            self.owned.begin(self._send(), "claim_instances")
        self._waiting.append(asked)
        return await asked.granted

    async def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        async with asyncio.TaskGroup() as group:
            for first in range(0, len(waiting), WORKS_MAX):
                group.create_task(self._ask(waiting[first : first + WORKS_MAX]))

    async def _ask(self, asking: Sequence[_Asked]) -> None:
        """Tell each what became of his claim. The request may take as long as the last of them waits."""
        claims = Claims(
            cell_id=self.cell_id, boot_id=self.boot_id, instances=tuple(asked.claim for asked in asking)
        )
        call = max((asked.call for asked in asking), key=lambda each: each.budget.deadline_s)
        outcomes: Sequence[ClaimGranted | DiegoError] = ()
        try:
            outcomes = await self.bbs.claim(call, claims)
        except DiegoError as failure:
            outcomes = [failure] * len(asking)
        finally:
            if not outcomes:
                outcomes = [ShuttingDown("this process is stopping", outcome=Outcome.UNKNOWN)] * len(asking)
            for asked, outcome in zip(asking, outcomes, strict=True):
                _tell(asked.granted, outcome)


def _tell(waiting: asyncio.Future[ClaimGranted], outcome: ClaimGranted | DiegoError) -> None:
    if waiting.done():
        return  # he stopped waiting
    if isinstance(outcome, DiegoError):
        waiting.set_exception(twin(outcome))
    else:
        waiting.set_result(outcome)
