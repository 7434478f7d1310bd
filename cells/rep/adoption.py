"""Taking up the containers of an earlier boot: what runs goes on and is watched, what ended is told, the rest goes."""

from __future__ import annotations

import asyncio

import structlog
from attrs import define

from cells.executor.backend import ContainerBackend
from cells.executor.executor import Executor
from cells.executor.outcomes import outcome_of
from cells.garden.spec import Container
from cells.rep import kept, task_kept, translate
from cells.rep.books import Books
from cells.rep.drain import DrainMark
from cells.rep.epoch import EpochFence
from cells.rep.instances import Instance, InstanceEvent
from cells.rep.task_kept import Adopted
from cells.rep.task_watch import TaskWatcher
from cells.rep.tasks import CellTaskEvent
from cells.rep.watch import Watcher
from diego_py.call import Call
from diego_py.errors import DiegoError
from diego_py.service.clock import Clock

REMOVE_BUDGET_MS = 60_000.0


@define
class Adoption:
    """The part that starts garden and rebuilds the books from what garden found."""

    garden: ContainerBackend
    executor: Executor
    books: Books
    fence: EpochFence
    drain: DrainMark
    watcher: Watcher
    task_watcher: TaskWatcher
    clock: Clock
    log: structlog.stdlib.BoundLogger

    async def start(self) -> None:
        """Return when every container is in the books or gone."""
        self.fence.load()
        self.books.ended.load()
        self.drain.load()
        self.books.task_ends.load()
        for end in self.books.task_ends.all():
            self.task_watcher.teller.tell(end.instance_guid)
        containers = await self.garden.start()
        for warning in self.garden.warnings():
            self.log.warning("host_less_safe", warning=warning)
        async with asyncio.TaskGroup() as group:
            for container in containers:
                group.create_task(self._adopt(container))
        found, told = len(self.books.instances), len(self.books.ended)
        tasks, ends = len(self.books.tasks), len(self.books.task_ends)
        self.log.info("disk_limits", **self.garden.disk_limits())
        self.log.info(
            "adopted", containers=len(containers), instances=found, ended=told, tasks=tasks, task_ends=ends
        )

    async def stop(self) -> None:
        """Let go of the containers; they run on."""
        await self.garden.close()

    async def _adopt(self, container: Container) -> None:
        of_task = task_kept.adopted(container, self.clock.now())
        if of_task is not None:
            await self._adopt_task(of_task, container)
            return
        found = kept.adopted(container, self.clock.now())
        if found is None:
            self.log.error("container_not_ours", handle=container.handle)
            return
        identity, workload = found
        instance = self.books.adopt(identity)
        if container.state in ("created", "destroying") or self.books.ended.has(instance.guid):
            await self._remove(instance)
            return
        instance.happen(InstanceEvent.CLAIM)  # its process was started, and that only ever happens after the claim
        instance.net_info = translate.net_info_of(container.network)
        self.watcher.take_up(instance, container, workload)

    async def _adopt_task(self, adopted: Adopted, container: Container) -> None:
        """What runs goes on to its end; what never began is given back; nothing is begun a second time.

        Never begun is only what was not even asked to: one that was may be on its way at this moment.
        """
        task = self.books.adopt_task(adopted.identity, adopted.claim_id)
        if self.books.task_ends.has(task.guid):
            task.happen(CellTaskEvent.STOP)
            await self.task_watcher.remove(Call.begin(self.clock, REMOVE_BUDGET_MS), task)
        elif container.state == "created" and container.started_at is None:
            await self.task_watcher.never_began(task)
        elif container.state not in ("running", "exited"):
            await self.task_watcher.interrupted(task)
        else:
            task.begun = True  # its process was started, and that only ever happens after the claim
            task.happen(CellTaskEvent.CLAIM)
            task.happen(CellTaskEvent.START)
            self.task_watcher.begin(task, container, adopted.workload, adopted.result_file)

    async def _remove(self, instance: Instance) -> None:
        """It never ran, or its end is on record or was asked for; nobody waits for it."""
        instance.happen(InstanceEvent.STOP)
        gone = await outcome_of(self.executor.destroy(Call.begin(self.clock, REMOVE_BUDGET_MS), instance.guid))
        if isinstance(gone, DiegoError):
            self.log.error("container_not_removed", handle=instance.guid, code=gone.root.code)
            return
        self.books.forget(instance.guid)
