"""The cascade of the cell, top to bottom: refuse or reserve, claim and create, start, answer; and the way back.

Runs inside the hop that the HTTP route entered ("rep"). The work belongs to the process, not to the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from attrs import define, field

from cells.executor.executor import Executor
from cells.executor.outcomes import outcome_of, value_of
from cells.executor.plan import Plan
from cells.garden.spec import Container, EgressRule
from cells.rep import translate
from cells.rep.admission import Admission
from cells.rep.blueprint import Blueprint, blueprint_of
from cells.rep.books import Books
from cells.rep.claims import ClaimsTogether
from cells.rep.instances import Identity, Instance, InstanceEvent
from cells.rep.shared import SharedWork
from cells.rep.undo import tell_leftovers, tell_outcome, with_time_to_undo
from cells.rep.watch import Watcher
from diego_py.call import Call
from diego_py.errors import ContainerNotFound, DiegoError, HandleTaken, Outcome, StoppedWhileStarting
from diego_py.models.identifiers import InstanceGuid
from diego_py.models.work import ClaimGranted, EgressChange, InstanceState, Started, Stopped, Work
from diego_py.service.run import OwnedTasks

STOP_BUDGET_MS = 120_000.0
"""A stop goes on after its caller's budget is spent: the container shall be gone in any case."""


@define
class CellWork:
    """Runs and stops instances. One for each cell process."""

    start_timeout_default_s: float
    books: Books
    admission: Admission
    claims: ClaimsTogether
    executor: Executor
    watcher: Watcher
    owned: OwnedTasks
    _starts: SharedWork[Started] = field(init=False)
    _stops: SharedWork[Stopped] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._starts = SharedWork("run_instance", self.owned)
        self._stops = SharedWork("stop_instance", self.owned)

    async def run_instance(self, call: Call, work: Work) -> Started:
        """Return when the instance is RUNNING; raise when it is not, with everything undone.

        A repeat of the same instance_guid joins the first request, or is told what became of it.
        """
        blueprint = blueprint_of(translate.checked(work).definition, self.start_timeout_default_s)
        return await self.run_checked(call, work, blueprint)

    async def run_checked(self, call: Call, work: Work, blueprint: Blueprint) -> Started:
        """The same of work that was checked, with what the blueprint of its definition says."""
        identity = translate.identity_of(work)
        known = self.books.instances.get(work.instance_guid)
        if known is not None and known.identity != identity:
            raise HandleTaken("another instance has this guid", outcome=Outcome.NOT_STARTED)
        if known is not None and known.state is InstanceState.RUNNING:
            return self._started(known)
        if known is not None and not self._starts.under_way(work.instance_guid):
            raise HandleTaken(f"this instance is {known.state} already", outcome=Outcome.NOT_STARTED)
        async with call.within_budget("run_instance"):
            return await self._starts.join(work.instance_guid, lambda: self._run(call, work, blueprint, identity))

    async def _run(self, call: Call, work: Work, blueprint: Blueprint, identity: Identity) -> Started:
        """Each step's undo is pushed before the step; the steps are in the order in which they happen."""
        self.admission.admit(work)
        plan = blueprint.plan(work)
        instance = self.books.reserve(identity)
        left: list[DiegoError] = []
        hurried = with_time_to_undo(call)
        try:
            async with AsyncExitStack() as undo:
                undo.callback(self._release, instance, left)
                undo.push_async_callback(self._destroy, call, instance, left)
                async with hurried.within_budget("run_instance"):
                    container = await self._claim_and_create(hurried, instance, plan)
                    if instance.stop_asked.done():
                        raise StoppedWhileStarting("stopped before its process was started")
                    await self.executor.start(hurried, container, plan.workload, instance.stop_asked)
                undo.pop_all()
        except DiegoError as failure:
            tell_outcome(failure, instance.guid, left, Outcome.ROLLED_BACK)
            raise
        instance.net_info = translate.net_info_of(container.network)
        instance.routable = not plan.workload.health.readiness
        instance.happen(InstanceEvent.START)
        # No report: the answer tells the BBS, and one that was lost is made good for by the next regular report.
        self.watcher.begin(instance, container, plan.workload)
        return self._started(instance)

    async def _claim_and_create(self, call: Call, instance: Instance, plan: Plan) -> Container:
        """Both at once; neither failure cancels the other. No process of the user runs before the claim is granted.

        What the instance may reach may have changed since the work was sent: the claim says what holds by now.
        """
        async with asyncio.TaskGroup() as group:
            creating = group.create_task(outcome_of(self.executor.create(call, plan)))
            claimed = await outcome_of(self._claim(call, instance))
        granted = value_of(claimed)
        container = value_of(creating.result())
        if granted.egress is not None:
            await self._reopen(call, instance, granted.egress, plan.spec.egress)
        return container

    async def _reopen(
        self, call: Call, instance: Instance, change: EgressChange, before: Sequence[EgressRule] | None = None
    ) -> None:
        """Change what it may reach, unless rules of a later version hold, or those are the ones that hold."""
        if change.version < instance.egress_version:
            return
        rules = tuple(translate.egress_of(rule) for rule in change.egress_rules)
        if rules != before:
            await self.executor.garden.set_egress(call, instance.guid, rules)
        instance.egress_version = change.version

    async def _claim(self, call: Call, instance: Instance) -> ClaimGranted:
        granted = await self.claims.claim(call, instance.identity)
        instance.happen(InstanceEvent.CLAIM)
        return granted

    async def _destroy(self, call: Call, instance: Instance, left: list[DiegoError]) -> None:
        """Undo of create and start."""
        instance.happen(InstanceEvent.FAIL)
        gone = await outcome_of(self.executor.destroy(call, instance.guid))
        if isinstance(gone, DiegoError):
            left.append(gone)

    def _release(self, instance: Instance, left: list[DiegoError]) -> None:
        """Undo of reserve. What a container still uses stays reserved, and the instance reported until it is gone."""
        if not left:
            self.books.forget(instance.guid)
        self.books.changed.set()

    async def stop_instance(self, call: Call, guid: InstanceGuid) -> Stopped:
        """Return when the instance's container is gone or never was there. Stops one that is still starting, too."""
        async with call.within_budget("stop_instance"):
            return await self._stops.join(guid, lambda: self._stop(call.with_budget(STOP_BUDGET_MS), guid))

    async def _stop(self, call: Call, guid: InstanceGuid) -> Stopped:
        known = self.books.instances.get(guid)
        if known is not None:
            known.ask_to_stop()
        existed = known is not None or self.executor.has(guid)
        await self._starts.settled(guid)  # who starts it undoes what he did
        await self._settled_end(guid)  # it may be ending by itself
        instance = self.books.instances.get(guid)
        try:
            if instance is not None:
                instance.happen(InstanceEvent.STOP)
                await self.watcher.leave(instance)
            if instance is not None or self.executor.has(guid):
                existed = True
                await self.executor.remove(call, guid)
        except DiegoError as failure:
            tell_leftovers(failure, guid, [failure])
            raise
        if instance is not None:
            self.books.forget(instance.guid)
        self.books.changed.set()
        return Stopped(instance_guid=guid, existed=existed)

    async def set_egress(self, call: Call, guid: InstanceGuid, change: EgressChange) -> None:
        """Change what an instance may reach; one that is starting is waited for. Raises ContainerNotFound.

        Changes of one instance take turns, and one of an older version than that which holds does nothing.
        """
        async with call.within_budget("set_egress"):
            await self._starts.settled(guid)
            instance = self.books.instances.get(guid)
            if instance is None or instance.state not in (InstanceState.CREATED, InstanceState.RUNNING):
                raise ContainerNotFound(f"no instance {guid} runs here", outcome=Outcome.NOT_STARTED)
            async with instance.reopening:
                await self._reopen(call, instance, change)

    async def _settled_end(self, guid: InstanceGuid) -> None:
        instance = self.books.instances.get(guid)
        if instance is not None and instance.state is InstanceState.STOPPING and instance.watching is not None:
            await asyncio.wait([instance.watching])

    def _started(self, instance: Instance) -> Started:
        assert instance.net_info is not None
        return Started(
            instance_guid=instance.guid,
            net_info=instance.net_info,
            available=self.books.reservations.available(),
            sequence=self.books.reservations.sequence,
            routable=instance.routable,
        )
