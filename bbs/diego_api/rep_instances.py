"""What Diego's reps and auctioneers tell of instances, met with our rows. Our own cells do not come this way."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from attrs import define, frozen

from bbs.api.desired_lrps import valid
from bbs.convergence.backoff import after_failure_s
from bbs.diego_api import codec
from bbs.diego_api.endpoint import Endpoint
from bbs.diego_api.errors import ErrorType, Refusal, invalid
from bbs.diego_api.requests import guid_of, index_of, text_of
from bbs.labels import Labels
from bbs.lifecycle import Lifecycle
from bbs.outcome import subject
from bbs.placement import Placement
from bbs.store import moves, rows
from bbs.store.attempts import Claim, Start
from bbs.store.transaction import Store, Transaction
from diego_py import chain
from diego_py.call import Call
from diego_py.chain import Problem
from diego_py.errors import ActualLRPNotFound, ClaimRefused, IllegalTransition, InstanceFailed, ToldByRep
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, NetInfo, Presence
from diego_py.models.identifiers import CellId, InstanceGuid, ProcessGuid, is_guid
from diego_py.models.workload import MetricTagValue

PLACED = (ActualLRPState.CLAIMED, ActualLRPState.RUNNING)


@frozen
class Told:
    """The instance that a request is about."""

    process_guid: ProcessGuid
    index: int
    instance_guid: InstanceGuid
    cell_id: CellId

    def is_of(self, row: ActualLRP) -> bool:
        """Whether the row is this very instance."""
        return (row.instance_guid, row.cell_id) == (self.instance_guid, self.cell_id)


@define
class RepInstances:
    """Handlers of what happens to instances."""

    store: Store
    lifecycle: Lifecycle
    placement: Placement

    def endpoints(self) -> list[Endpoint]:
        path, done = "/v1/actual_lrps", "ActualLRPLifecycleResponse"
        start = ("diego_start_actual_lrp", "StartActualLRPRequest", done, self.start)
        return [
            Endpoint(f"{path}/claim", "diego_claim_actual_lrp", "ClaimActualLRPRequest", done, self.claim),
            Endpoint(f"{path}/start", *start),
            Endpoint(f"{path}/start.r1", *start),
            Endpoint(f"{path}/crash", "diego_crash_actual_lrp", "CrashActualLRPRequest", done, self.crash),
            Endpoint(f"{path}/fail", "diego_fail_actual_lrp", "FailActualLRPRequest", done, self.fail),
            Endpoint(f"{path}/remove", "diego_remove_actual_lrp", "RemoveActualLRPRequest", done, self.remove),
            Endpoint(
                f"{path}/remove_evacuating",
                "diego_remove_evacuating",
                "EvacuateInstanceRequest",
                done,
                self.remove_evacuating,
            ),
        ]

    async def claim(self, request: Any, call: Call) -> None:
        """A cell takes the row that it was offered; again, if it has it already."""
        if not request.HasField("actual_lrp_instance_key"):
            raise invalid("actual_lrp_instance_key")
        told = _told(request, request.actual_lrp_instance_key)
        claim = Claim(told.process_guid, told.index, told.instance_guid, told.cell_id, None)
        try:
            await self.lifecycle.claim(call, claim)
        except ClaimRefused as refused:
            if not await self._is_suspect(call, told):
                await self._row(call, told)
                raise Refusal(ErrorType.ACTUAL_LRP_CANNOT_BE_CLAIMED, refused.message) from refused

    async def start(self, request: Any, call: Call) -> None:
        """The instance runs there; also the heartbeat of one that does."""
        told = told_keys(request)
        if not request.HasField("actual_lrp_net_info"):
            raise invalid("actual_lrp_net_info")
        net_info = valid(codec.model(NetInfo, request.actual_lrp_net_info))
        routable = request.routable if request.HasField("routable") else True
        zone = text_of(request.availability_zone, "availability_zone")
        started = Start(
            told.process_guid, told.index, told.instance_guid, told.cell_id, net_info, zone, routable=routable
        )
        try:
            row = await self.lifecycle.start(call, started)
        except (ClaimRefused, IllegalTransition) as refused:
            if await self._is_suspect(call, told):
                return
            raise Refusal(ErrorType.ACTUAL_LRP_CANNOT_BE_STARTED, refused.message) from refused
        if row.routable != routable:
            await self.store.run(call, "set_routable", lambda tx: _open_or_close(tx, told, routable))
        await self.keep_labels(call, told, request)

    async def crash(self, request: Any, call: Call) -> None:
        """The app ended there by its own fault."""
        await self.crashed(call, told_keys(request), request.error_message)

    async def fail(self, request: Any, call: Call) -> None:
        """Nobody could take the instance."""
        if not request.HasField("actual_lrp_key"):
            raise invalid("actual_lrp_key")
        if not request.error_message:
            raise invalid("error_message")
        guid, index = guid_of(request.actual_lrp_key), index_of(request.actual_lrp_key.index)
        row = await self._row_at(call, guid, index)
        if row.state is not ActualLRPState.UNCLAIMED:
            raise Refusal(ErrorType.ACTUAL_LRP_CANNOT_BE_FAILED, f"{_named(row)} is {row.state}")
        wait_s = after_failure_s(row.attempts + 1, ToldByRep.fault, self.placement.jitter())
        problem = self.problem(call, row, request.error_message)
        await self.lifecycle.fail(call, row, problem, call.clock.now() + timedelta(seconds=wait_s))

    async def remove(self, request: Any, call: Call) -> None:
        """The container of the instance is gone."""
        told = _told(request, request.actual_lrp_instance_key)
        row = await self._row(call, told)
        if row.instance_guid != told.instance_guid or row.cell_id != (told.cell_id or None):
            raise Refusal(ErrorType.ACTUAL_LRP_CANNOT_BE_REMOVED, f"{_named(row)} is another instance")
        await self.lifecycle.remove(call, told.process_guid, told.index, row.instance_guid)

    async def remove_evacuating(self, request: Any, call: Call) -> None:
        """The container of an instance that was evacuated is gone. Nothing if its row is, too."""
        told = told_keys(request)
        rows = await self.rows(call, told)
        row = next((row for row in rows if row.presence is Presence.EVACUATING), None)
        if row is not None and not told.is_of(row):
            raise Refusal(ErrorType.ACTUAL_LRP_CANNOT_BE_REMOVED, f"{_named(row)} is another instance")
        await self.drop(call, row)

    async def keep_labels(self, call: Call, told: Told, request: Any) -> None:
        """Keep what the rep tells of a running instance besides its state. Nothing if it tells nothing."""
        routes = [{"hostname": route.hostname} for route in request.internal_routes]
        tags = {name: MetricTagValue(static=value) for name, value in request.metric_tags.items()}
        if routes or tags:
            labels = Labels(internal_routes=routes, metric_tags=tags)
            await self.store.run(call, "tell_labels", lambda tx: tx.labels.tell(told.instance_guid, labels))

    async def crashed(self, call: Call, told: Told, reason: str) -> None:
        """Count the crash, and make the row wait for its next start. A suspect instance just goes."""
        suspect = await self.beside(call, told, Presence.SUSPECT)
        if suspect is not None:
            return await self.drop(call, suspect)
        row = await self._row(call, told)
        if row.state not in PLACED or not told.is_of(row):
            raise Refusal(ErrorType.ACTUAL_LRP_CANNOT_BE_CRASHED, f"{_named(row)} is {row.state}")
        key = (told.process_guid, told.index, told.instance_guid, told.cell_id)
        await self.lifecycle.crash(call, *key, self.problem(call, row, reason), gone=True)
        return None

    async def _is_suspect(self, call: Call, told: Told) -> bool:
        """Whether it runs there already, as one that was given up: looked for only once its row is another one's."""
        return await self.beside(call, told, Presence.SUSPECT) is not None

    async def beside(self, call: Call, told: Told, presence: Presence) -> ActualLRP | None:
        """The row of this presence, if it is this instance."""
        rows = await self.rows(call, told)
        return next((row for row in rows if row.presence is presence and told.is_of(row)), None)

    async def rows(self, call: Call, told: Told) -> Sequence[ActualLRP]:
        """Every row of the index."""
        guid = told.process_guid
        found = await self.store.read(call, "list_instances", lambda tx: tx.actual_lrps.list_of(guid))
        return [row for row in found if row.index == told.index]

    async def drop(self, call: Call, row: ActualLRP | None) -> None:
        """Forget this row, if there is one."""
        if row is not None:
            key = (row.process_guid, row.index, row.instance_guid)
            await self.lifecycle.remove(call, *key, presence=row.presence)

    def problem(self, call: Call, row: ActualLRP, reason: str) -> Problem:
        """The document of what a rep said."""
        error = call.framed(InstanceFailed(f"keep {_named(row)} running"))
        error.__cause__ = call.framed(ToldByRep(text_of(reason, "error_message") or "no reason is known"))
        return self.placement.numbered(chain.problem(error, call, subject(row)))

    async def _row(self, call: Call, told: Told) -> ActualLRP:
        return await self._row_at(call, told.process_guid, told.index)

    async def _row_at(self, call: Call, guid: ProcessGuid, index: int) -> ActualLRP:
        row = await self.store.read(call, "get_actual_lrp", lambda tx: tx.actual_lrps.get(guid, index))
        if row is None:
            raise ActualLRPNotFound(f"no instance {guid}/{index}")
        return row


def told_keys(request: Any) -> Told:
    """The instance that both keys of a request name."""
    if not request.HasField("actual_lrp_key"):
        raise invalid("actual_lrp_key")
    if not request.HasField("actual_lrp_instance_key"):
        raise invalid("actual_lrp_instance_key")
    return _told(request.actual_lrp_key, request.actual_lrp_instance_key)


def _told(key: Any, instance_key: Any) -> Told:
    if not is_guid(instance_key.instance_guid):
        raise invalid("instance_guid")
    if not instance_key.cell_id or "\0" in instance_key.cell_id:
        raise invalid("cell_id")
    guid, cell_id = InstanceGuid(instance_key.instance_guid), CellId(instance_key.cell_id)
    return Told(guid_of(key), index_of(key.index), guid, cell_id)


async def _open_or_close(tx: Transaction, told: Told, routable: bool) -> None:
    """Its readiness is another one than before; not of one that is to be stopped, which nothing opens again."""
    locked = await tx.actual_lrps.lock(told.process_guid, told.index)
    if locked is None or locked.row.state is not ActualLRPState.RUNNING or not told.is_of(locked.row):
        return
    if locked.row.stop_asked_at is None and locked.row.routable != routable:
        await rows.save(tx, locked, moves.reopened(locked.row, routable))


def _named(row: ActualLRP) -> str:
    return f"{row.process_guid}/{row.index}"
