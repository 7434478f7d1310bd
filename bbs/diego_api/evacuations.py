"""What a rep that is being emptied asks of each instance: whether its container shall stay until another one runs."""

from __future__ import annotations

from typing import Any

from attrs import define
from google.protobuf.message import Message

from bbs.diego_api.descriptors import MESSAGES
from bbs.diego_api.endpoint import Endpoint
from bbs.diego_api.rep_instances import PLACED, RepInstances, Told, told_keys
from bbs.outcome import tell
from diego_py.call import Call
from diego_py.errors import DesiredLRPNotFound, EvacuationFailed, IllegalTransition
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, Presence
from diego_py.models.desired_lrp import DesiredLRP, UpdateStrategy
from diego_py.service.run import OwnedTasks

EVACUATED = "its cell is being emptied"
OVER = (ActualLRPState.RUNNING, ActualLRPState.CRASHED)


@define
class RepEvacuations:
    """Handlers of evacuation."""

    instances: RepInstances
    owned: OwnedTasks
    start_budget_ms: float

    def endpoints(self) -> list[Endpoint]:
        path, both, gives = "/v1/actual_lrps/evacuate_", "EvacuateInstanceRequest", "EvacuationResponse"
        crashed, running = "EvacuateCrashedActualLRPRequest", "EvacuateRunningActualLRPRequest"
        return [
            Endpoint(f"{path}claimed", "diego_evacuate_claimed", both, gives, self.claimed),
            Endpoint(f"{path}crashed", "diego_evacuate_crashed", crashed, gives, self.crashed),
            Endpoint(f"{path}stopped", "diego_evacuate_stopped", both, gives, self.stopped),
            Endpoint(f"{path}running", "diego_evacuate_running", running, gives, self.running),
            Endpoint(f"{path}running.r1", "diego_evacuate_running", running, gives, self.running),
        ]

    async def claimed(self, request: Any, call: Call) -> Message:
        """It had not begun: somebody else shall."""
        told = told_keys(request)
        if not await self._dropped(call, told):
            row = await self._ordinary(call, told)
            if row is not None and told.is_of(row) and row.state is ActualLRPState.CLAIMED:
                await self.instances.lifecycle.fail(call, row, self.instances.problem(call, row, EVACUATED), gone=True)
        return _keep(False)

    async def crashed(self, request: Any, call: Call) -> Message:
        """It ended by its own fault meanwhile."""
        told = told_keys(request)
        if not await self._dropped(call, told):
            await self.instances.crashed(call, told, request.error_message)
        return _keep(False)

    async def stopped(self, request: Any, call: Call) -> Message:
        """Its container is gone."""
        told = told_keys(request)
        if not await self._dropped(call, told):
            row = await self._ordinary(call, told)
            if row is not None and told.is_of(row):
                await self.instances.drop(call, row)
        return _keep(False)

    async def running(self, request: Any, call: Call) -> Message:
        """It serves until another one runs elsewhere, which is begun here."""
        told = told_keys(request)
        await self.instances.keep_labels(call, told, request)
        rows = await self.instances.rows(call, told)
        ordinary = next((row for row in rows if row.presence is Presence.ORDINARY), None)
        evacuating = next((row for row in rows if row.presence is Presence.EVACUATING), None)
        if ordinary is not None and told.is_of(ordinary) and ordinary.state in PLACED:
            return _keep(await self._replaced(call, ordinary))
        ours = evacuating is not None and told.is_of(evacuating)
        if ours and (ordinary is None or ordinary.state in OVER):
            await self.instances.drop(call, evacuating)
            return _keep(False)
        return _keep(ours)

    async def _replaced(self, call: Call, row: ActualLRP) -> bool:
        """Begin with the other one. Whether this one shall stay for now."""
        guid = row.process_guid
        desired = await self.instances.store.read(call, "get_desired_lrp", lambda tx: tx.desired_lrps.get(guid))
        if desired is None:
            raise DesiredLRPNotFound(f"no desired LRP {guid}")
        if desired.definition.update_strategy is UpdateStrategy.RECREATE:
            return await self._recreated(call, row, desired)
        if row.state is not ActualLRPState.RUNNING:
            return True
        try:
            pair = await self.instances.placement.succession.displace(call, row, desired.revision)
        except IllegalTransition:
            return True  # it changed since it was read: the rep asks again
        self.owned.begin(self._place(call, desired, pair.new), f"replace {guid}/{row.index}")
        return True

    async def _recreated(self, call: Call, row: ActualLRP, desired: DesiredLRP) -> bool:
        """Never two of one index, and of all indices at most one that does not run."""
        guid = row.process_guid
        others = await self.instances.store.read(call, "list_instances", lambda tx: tx.actual_lrps.list_of(guid))
        running = [one for one in others if one.state is ActualLRPState.RUNNING]
        if len(running) < desired.definition.instances:
            return True
        restarted = await self.instances.lifecycle.restart(call, guid, row.index, desired.revision)
        self.owned.begin(self._place(call, desired, restarted.after), f"recreate {guid}/{row.index}")
        return False

    async def _place(self, call: Call, desired: DesiredLRP, row: ActualLRP) -> None:
        placement = self.instances.placement
        call = call.with_budget(self.start_budget_ms + desired.definition.start_timeout_ms)
        outcome = await placement.place_one(call, desired, row, None)
        if outcome.error is not None:
            told = tell(call, EvacuationFailed, f"move {row.process_guid}/{row.index}", [outcome])
            await placement.stored(call, told)

    async def _dropped(self, call: Call, told: Told) -> bool:
        """Forget the row of this instance that is beside the ordinary one. False if there is none."""
        for presence in (Presence.EVACUATING, Presence.SUSPECT):
            row = await self.instances.beside(call, told, presence)
            if row is not None:
                await self.instances.drop(call, row)
                return True
        return False

    async def _ordinary(self, call: Call, told: Told) -> ActualLRP | None:
        rows = await self.instances.rows(call, told)
        return next((row for row in rows if row.presence is Presence.ORDINARY), None)


def _keep(keep: bool) -> Message:
    message: Message = MESSAGES["EvacuationResponse"](keep_container=keep)
    return message
