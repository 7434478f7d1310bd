"""What happens to an instance after it started: it is watched, and its end is kept, undone and told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
import structlog
from attrs import define

from cells.executor.executor import Executor, Readiness
from cells.executor.outcomes import outcome_of
from cells.executor.plan import Workload
from cells.garden.spec import Container
from cells.rep.books import Books
from cells.rep.instances import Instance, InstanceEvent
from cells.rep.undo import tell_ended
from diego_py import chain
from diego_py.call import Call
from diego_py.errors import DiegoError, RepFailed
from diego_py.models.identifiers import CellId
from diego_py.models.work import EndedReport
from diego_py.service.clock import Clock
from diego_py.service.run import OwnedTasks

WATCH_BUDGET_MS = 120_000.0


@define
class Watcher:
    """Owns one task for each instance that is not in the hands of a request."""

    cell_id: CellId
    executor: Executor
    books: Books
    tasks: OwnedTasks
    clock: Clock
    log: structlog.stdlib.BoundLogger

    def begin(self, instance: Instance, container: Container, workload: Workload) -> None:
        """Watch an instance that is RUNNING."""
        work = self._watch(instance, container, workload)
        instance.watching = self.tasks.begin(work, f"watch {instance.guid}")

    def take_up(self, instance: Instance, container: Container, workload: Workload) -> None:
        """Watch an instance of an earlier boot: whether it was ever healthy is found out first."""
        work = self._recheck_and_watch(instance, container, workload)
        instance.watching = self.tasks.begin(work, f"watch {instance.guid}")

    async def leave(self, instance: Instance) -> None:
        """Stop watching, because somebody else now ends the instance."""
        watching, instance.watching = instance.watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.wait([watching])

    async def _recheck_and_watch(self, instance: Instance, container: Container, workload: Workload) -> None:
        call = Call.begin(self.clock, WATCH_BUDGET_MS + workload.health.start_timeout_s * 1000)
        failure = await self._failure("adopt_instance", call, lambda c: self.executor.recheck(c, container, workload))
        if failure is not None:
            await self._conclude(call, instance, failure)
            return
        instance.routable = await self.executor.is_ready(call, container, workload)
        instance.happen(InstanceEvent.START)
        self.books.changed.set()
        await self._watch(instance, container, workload)

    async def _watch(self, instance: Instance, container: Container, workload: Workload) -> None:
        call = Call.begin(self.clock, WATCH_BUDGET_MS)
        readiness = Readiness(instance.routable, partial(self._routable, instance))
        watched = partial(self.executor.watch, container=container, workload=workload, readiness=readiness)
        failure = await self._failure("watch_instance", call, watched)
        assert failure is not None
        await self._conclude(call, instance, failure)

    def _routable(self, instance: Instance, routable: bool) -> None:
        """Its readiness changed; the BBS shall hear of it soon."""
        instance.routable = routable
        self.books.changed.set()

    async def _failure(
        self, op: str, call: Call, watched: Callable[[Call], Awaitable[DiegoError | None]]
    ) -> DiegoError | None:
        """What `watched` returns, in the frame of this hop: nobody's request is under way that would have one."""
        try:
            with call.hop("rep", self.cell_id, op, RepFailed) as inner:
                failure = await watched(inner)
                if failure is None:
                    return None
                raise failure
        except DiegoError as framed:
            tell_ended(framed)
            return framed

    async def _conclude(self, call: Call, instance: Instance, failure: DiegoError) -> None:
        """Keep the document before anything is removed, so that no crash of ours loses it; then remove, then tell."""
        instance.happen(InstanceEvent.END)
        identity = instance.identity
        problem = chain.problem(failure, call, identity.subject())
        self.log.info("instance_ended", instance_guid=instance.guid, code=problem.code, detail=problem.detail)
        report = EndedReport(
            process_guid=identity.process_guid,
            index=identity.index,
            domain=identity.domain,
            instance_guid=instance.guid,
            failure=msgspec.json.decode(problem.encode()),
        )
        await self.books.ended.add(report)
        left = await outcome_of(self.executor.remove(call, instance.guid))
        if isinstance(left, DiegoError):
            self.log.error("container_not_removed", handle=instance.guid, code=left.root.code, detail=left.root.message)
        else:
            self.books.forget(instance.guid)
        instance.watching = None
        self.books.changed.set()
