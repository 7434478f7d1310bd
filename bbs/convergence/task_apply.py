"""Carries a plan for tasks out, and makes no choices: each step is fenced by the epoch and by the row's revision."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from attrs import define

from bbs.convergence.apply import REPAIR_BUDGET_MS, REPAIRS_MAX
from bbs.convergence.task_plan import TaskPlan, TaskStep
from bbs.task_callbacks import TaskCallbacks
from bbs.task_lifecycle import TaskLifecycle
from bbs.task_outcome import tell
from bbs.task_placement import TaskPlacement
from diego_py.call import Call
from diego_py.chain import Problem
from diego_py.errors import DiegoError, Outcome, TaskExpired, TaskFailed, TaskLost

Repair = Callable[[Call, TaskStep, int], Awaitable[None]]


@define
class TaskRepairs:
    """Effects of convergence. Each repair is a call of its own; one that fails is logged and hinders none."""

    id: str
    lifecycle: TaskLifecycle
    placement: TaskPlacement
    callbacks: TaskCallbacks
    log: structlog.stdlib.BoundLogger

    async def apply(self, plan: TaskPlan, epoch: int) -> None:
        """All steps, side by side."""
        slots = asyncio.Semaphore(REPAIRS_MAX)

        async def bounded(repair: Repair, step: TaskStep) -> None:
            async with slots:
                await self._reported(repair, step, epoch)

        async with asyncio.TaskGroup() as group:
            for repair, steps in (
                (self._expire, plan.expire),
                (self._lose, plan.lose),
                (self._recall, plan.recall),
                (self._delete, plan.delete),
                (self._call_back, plan.call_back),
                (self._place, plan.place),
            ):
                for step in steps:
                    group.create_task(bounded(repair, step))

    async def _expire(self, call: Call, step: TaskStep, epoch: int) -> None:
        problem = await self._problem(call, step, TaskExpired(step.reason, outcome=Outcome.NOT_STARTED))
        self.callbacks.completed(await self.lifecycle.expire(call, step.task, epoch, problem))

    async def _lose(self, call: Call, step: TaskStep, epoch: int) -> None:
        problem = await self._problem(call, step, TaskLost(step.reason, outcome=Outcome.UNKNOWN))
        self.callbacks.completed(await self.lifecycle.lose(call, step.task, epoch, problem))

    async def _recall(self, call: Call, step: TaskStep, epoch: int) -> None:
        self.callbacks.completed(await self.lifecycle.recall(call, step.task, epoch))

    async def _delete(self, call: Call, step: TaskStep, epoch: int) -> None:
        await self.lifecycle.forget(call, step.task, epoch)
        self.callbacks.completions.gone(step.task.task_guid)

    async def _call_back(self, call: Call, step: TaskStep, epoch: int) -> None:
        self.callbacks.begin(step.task.task_guid)

    async def _place(self, call: Call, step: TaskStep, epoch: int) -> None:
        await self.placement.repair(call, step.task, epoch)

    async def _problem(self, call: Call, step: TaskStep, error: DiegoError) -> Problem:
        """The document of a task that is given up here."""
        task = await self.lifecycle.get(call, step.task.task_guid)
        _, problem = tell(call, f"run {task.task_guid}", task, call.framed(error))
        return self.placement.numbered(problem)

    async def _reported(self, repair: Repair, step: TaskStep, epoch: int) -> None:
        """Errors of one repair end here: they are stored with the row already, or the row moved on."""
        guid = step.task.task_guid
        self.log.info("task_repair", task_guid=guid, repair=repair.__name__.strip("_"), reason=step.reason)
        try:
            call = Call.begin(self.lifecycle.clock, REPAIR_BUDGET_MS)
            with call.hop("bbs", self.id, "repair_task", TaskFailed) as call:
                await repair(call, step, epoch)
        except DiegoError as error:
            self.log.warning("task_repair_failed", task_guid=guid, code=error.root.code, detail=error.root.message)
