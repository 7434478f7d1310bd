"""One workload from its container to its end: create, start, watch, remove. Books and the BBS are the rep's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from enum import Enum, auto
from functools import partial
from typing import Any, TypeAlias

from attrs import define, frozen

from cells.executor import failures, results
from cells.executor.backend import ContainerBackend
from cells.executor.failures import APP_LOG_TAIL_LINES, CheckProgress
from cells.executor.health import Health, Unhealthy, Watched
from cells.executor.outcomes import first_of, outcome_of, unless
from cells.executor.pace import Pace
from cells.executor.plan import Plan, Workload
from cells.executor.programs import Program, Programs
from cells.garden.spec import Container
from diego_py.call import ANSWER_MARGIN_MS, Call
from diego_py.errors import (
    BudgetSpent,
    DiegoError,
    ExecutorFailed,
    Outcome,
    ProgramLost,
    StoppedWhileStarting,
)
from diego_py.service.clock import Clock

STOP_MARGIN_MS = 30_000.0
"""What removing a container may take beside the grace time of its process."""


Reached: TypeAlias = Callable[[], Coroutine[Any, Any, object]]
"""Returns when what is waited for is so."""


@frozen
class Readiness:
    """Whether a workload was ready when it was last asked, and who wants to know when that changes."""

    ready: bool
    changed: Callable[[bool], None]


class Signal(Enum):
    """What can end a start besides the process itself."""

    REACHED = auto()
    STOP_ASKED = auto()


@define
class Executor:
    """Brings workloads to life in one backend."""

    cell_id: str
    garden: ContainerBackend
    health: Health
    programs: Programs
    clock: Clock
    pace: Pace

    async def create(self, call: Call, plan: Plan) -> Container:
        """Make the container; no process of the user runs. Not a hop of the executor: the chain goes on to garden."""
        return await self.garden.create(call, plan.spec)

    async def start(
        self, call: Call, container: Container, workload: Workload, stop_asked: asyncio.Future[None]
    ) -> None:
        """Do the setup and begin the action; returns when it is healthy.

        Raises what the steps do, NeverHealthy, BudgetSpent or StoppedWhileStarting, and leaves the container as it then
        is: whoever created it destroys it.
        """
        with call.hop("executor", self.cell_id, "start", ExecutorFailed) as inner:
            watched = self._watched(inner, container, workload)
            await self._until(watched, stop_asked, watched.program.set_up.wait)
            await self._until_healthy(inner, watched, stop_asked)

    async def _until_healthy(self, call: Call, watched: Watched, stop_asked: asyncio.Future[None]) -> None:
        """Return with the first round of checks that all pass; raise when something else happens first."""
        start_timeout_s = watched.workload.health.start_timeout_s
        budget_s = max(0.0, call.remaining_ms() - 2 * ANSWER_MARGIN_MS) / 1000
        limit_s = min(start_timeout_s, budget_s)
        progress = CheckProgress()
        try:
            async with asyncio.timeout(limit_s) as scope:
                await self._until(watched, stop_asked, partial(self.health.first, call, watched, progress))
        except TimeoutError:
            if not scope.expired():
                raise
            log_tail = await self._log_tail(watched.container.handle)
            if start_timeout_s <= budget_s:
                raise failures.never_healthy(start_timeout_s, progress, log_tail) from None
            evidence = failures.check_evidence(progress, limit_s, log_tail)
            told = f"not healthy when the {call.budget.total_ms:.0f} ms of the request were spent"
            raise BudgetSpent(told, outcome=Outcome.UNKNOWN, evidence=evidence) from None

    async def _until(self, watched: Watched, stop_asked: asyncio.Future[None], reached: Reached) -> None:
        """Return when `reached` does; raise when the program ends before, or somebody wants its end.

        What a program that has ended left behind may go on, and is then waited for anew.
        """
        if await unless((watched.program.ended, stop_asked), reached()):
            return
        if await first_of(self._end_of(watched), _asked(stop_asked), _reached(reached)) is Signal.STOP_ASKED:
            raise StoppedWhileStarting("stopped before it was running")

    async def recheck(self, call: Call, container: Container, workload: Workload) -> DiegoError | None:
        """Wait until an adopted workload is healthy again; returns how it failed instead, framed and chained."""
        try:
            with call.hop("executor", self.cell_id, "adopt", ExecutorFailed) as inner:
                await self._until_healthy(inner, self._watched(inner, container, workload), _never())
        except DiegoError as failure:
            return failure
        return None

    async def is_ready(self, call: Call, container: Container, workload: Workload) -> bool:
        """Whether its readiness checks pass now. Raises ProgramLost."""
        return bool(await self.health.is_ready(call, self._watched(call, container, workload)))

    async def watch(self, call: Call, container: Container, workload: Workload, readiness: Readiness) -> DiegoError:
        """Return how a running workload failed, framed and chained, as soon as it does. Tells whether it is ready."""
        try:
            with call.hop("executor", self.cell_id, "watch", ExecutorFailed) as inner:
                began_s = self.clock.monotonic()
                watched = self._watched(inner, container, workload)
                loops = [self.health.failure(inner, watched)] if self.health.is_checked(workload) else []
                if workload.health.readiness:
                    loops.append(self.health.readiness(inner, watched, readiness.ready, readiness.changed))
                ended: Signal | Unhealthy = await first_of(self._end_of(watched), *loops)
                assert isinstance(ended, Unhealthy)
                healthy_s = self.clock.monotonic() - began_s
                log_tail = await self._log_tail(container.handle)
                raise failures.became_unhealthy(ended.result, healthy_s, ended.attempts, log_tail)
        except DiegoError as failure:
            return failure

    async def run_to_end(self, call: Call, container: Container, workload: Workload, result_file: str) -> str:
        """Carry out a workload that shall end, or wait for the one under way; returns what `result_file` then holds.

        Empty when no file is named. The container stays. Raises what the steps do, ProgramLost, ResultMissing,
        ResultTooLarge.
        """
        with call.hop("executor", self.cell_id, "run_to_end", ExecutorFailed) as inner:
            watched = self._watched(inner, container, workload)
            await _done(watched.program)
            if not result_file:
                return ""
            # What its timeout gave up may still run, and could go on writing.
            await self.garden.stop(inner, container.handle, self.pace.graceful_stop_s)
            return await results.read(inner, self.garden, container.handle, result_file)

    async def remove(self, call: Call, handle: str) -> None:
        """Let the process end within the grace time, then remove the container. Idempotent."""
        await self.programs.end(handle)
        call = call.with_budget(self.pace.graceful_stop_s * 1000 + STOP_MARGIN_MS)
        await self.garden.destroy(call, handle, self.pace.graceful_stop_s)

    async def destroy(self, call: Call, handle: str) -> None:
        """Kill and remove the container at once: the undo of a start that nobody was told of. Idempotent."""
        try:
            await self.garden.destroy(call.with_budget(STOP_MARGIN_MS), handle)
        finally:
            await self.programs.end(handle)

    def has(self, handle: str) -> bool:
        """Whether a container of this name exists, in whatever state."""
        return self._find(handle) is not None

    def _find(self, handle: str) -> Container | None:
        return next((found for found in self.garden.containers() if found.handle == handle), None)

    def _watched(self, call: Call, container: Container, workload: Workload) -> Watched:
        """The workload with its program, begun now if it was not. Raises ProgramLost, ShuttingDown."""
        if workload.lost:
            raise ProgramLost("what ran in the container cannot be taken up after a restart of its cell")
        return Watched(container, workload, self.programs.begin(call, container, workload))

    async def _end_of(self, watched: Watched) -> Signal:
        """Raise how the program ended; that all was done is a failure of something that shall run on.

        One that went to the background has ended when nothing that it left lives any more; until then, and for ever
        when it ran beside an idle process, its checks say how it is.
        """
        await _done(watched.program)
        handle = watched.container.handle
        found = self._find(handle)
        if found is not None and found.state == "exited":
            ended = await self.garden.wait(handle)
            while ended.lingers and self.garden.activity(handle) != "ended":
                await self.clock.sleep(self.pace.liveness_interval_s)
            raise failures.exited(ended)
        if watched.workload.goes_on:
            await asyncio.Event().wait()
        raise failures.done(await self._log_tail(handle))

    async def _log_tail(self, handle: str) -> list[str]:
        """The app's last lines; failing to read them never hides the failure they were read for."""
        lines = await outcome_of(self._read_log(handle))
        return [] if isinstance(lines, DiegoError) else lines

    async def _read_log(self, handle: str) -> list[str]:
        return [line.text async for line in self.garden.logs(handle, APP_LOG_TAIL_LINES, False)]


async def _done(program: Program) -> Signal:
    """Return when all of it is done. Raises how it failed."""
    failure = await program.end()
    if failure is not None:
        raise failure
    return Signal.REACHED


def _never() -> asyncio.Future[None]:
    """Nobody asks for its end."""
    return asyncio.get_running_loop().create_future()


async def _asked(stop_asked: asyncio.Future[None]) -> Signal:
    await asyncio.wait([stop_asked])
    return Signal.STOP_ASKED


async def _reached(reached: Reached) -> Signal:
    await reached()
    return Signal.REACHED
