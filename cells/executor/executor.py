"""One workload from its container to its end: create, start, watch, remove. Books and the BBS are the rep's."""

from __future__ import annotations

import asyncio
from enum import Enum, auto

from attrs import define, frozen

from cells.executor import failures
from cells.executor.backend import ContainerBackend
from cells.executor.checks import pace
from cells.executor.checks.prober import Prober
from cells.executor.checks.result import CheckResult
from cells.executor.failures import APP_LOG_TAIL_LINES, CheckProgress
from cells.executor.outcomes import first_of, outcome_of
from cells.executor.plan import HealthPlan, Plan
from cells.garden.spec import Container, Exit
from diego_py.call import ANSWER_MARGIN_MS, Call
from diego_py.errors import (
    BudgetSpent,
    ContainerNotFound,
    ContainerVanished,
    DiegoError,
    ExecutorFailed,
    Outcome,
    StoppedWhileStarting,
)
from diego_py.models.checks import Check
from diego_py.service.clock import Clock

LIVENESS_BUDGET_MS = 60_000.0
SETTLE_LOOK_S = 0.001
"""Between two looks at what a process that was just started does."""
SETTLE_PATIENCE = 40
"""A process gets so many settle times of waiting to use one of processor time: then it works, but is given too little
of the machine to show it."""
STOP_MARGIN_MS = 30_000.0
"""What removing a container may take beside the grace time of its process."""


class Signal(Enum):
    """What can end a start besides the process itself."""

    HEALTHY = auto()
    STOP_ASKED = auto()


@frozen
class Pace:
    """How long things are waited for on this cell, in seconds."""

    settle_s: float
    """A process without a check that has worked for so much processor time counts as running. Less, and a command that
    fails early would be answered with 201; more, and every start of something that is busy at first takes longer."""
    startup_interval_max_s: float
    liveness_interval_s: float
    graceful_stop_s: float


@frozen
class Unhealthy:
    """A liveness check failed."""

    result: CheckResult
    attempts: int


@define
class Executor:
    """Brings workloads to life in one backend."""

    cell_id: str
    garden: ContainerBackend
    prober: Prober
    clock: Clock
    pace: Pace

    async def create(self, call: Call, plan: Plan) -> Container:
        """Make the container; no process of the user runs. Not a hop of the executor: the chain goes on to garden."""
        return await self.garden.create(call, plan.spec)

    async def start(self, call: Call, container: Container, health: HealthPlan, stop_asked: asyncio.Event) -> None:
        """Start the process; returns when it is healthy.

        Raises ProcessExited, OutOfMemory, NeverHealthy, BudgetSpent or StoppedWhileStarting, and leaves the container
        as it then is: whoever created it destroys it.
        """
        with call.hop("executor", self.cell_id, "start", ExecutorFailed) as inner:
            await self.garden.run(inner, container.handle)
            await self.until_healthy(inner, container, health, stop_asked)

    async def until_healthy(
        self, call: Call, container: Container, health: HealthPlan, stop_asked: asyncio.Event
    ) -> None:
        """Return with the first round of checks that all pass; raise when something else happens first."""
        budget_s = max(0.0, call.remaining_ms() - 2 * ANSWER_MARGIN_MS) / 1000
        limit_s = min(health.start_timeout_s, budget_s)
        progress = CheckProgress()
        try:
            async with asyncio.timeout(limit_s) as scope:
                ended = await first_of(
                    self._exit_of(container.handle),
                    _asked(stop_asked),
                    self._first_healthy(call, container, health, progress),
                )
        except TimeoutError:
            if not scope.expired():
                raise
            log_tail = await self._log_tail(container.handle)
            if health.start_timeout_s <= budget_s:
                raise failures.never_healthy(health.start_timeout_s, progress, log_tail) from None
            evidence = failures.check_evidence(progress, limit_s, log_tail)
            told = f"not healthy when the {call.budget.total_ms:.0f} ms of the request were spent"
            raise BudgetSpent(told, outcome=Outcome.UNKNOWN, evidence=evidence) from None
        if isinstance(ended, Exit):
            raise failures.exited(ended)
        if ended is Signal.STOP_ASKED:
            raise StoppedWhileStarting("stopped before it was running")

    async def recheck(self, call: Call, container: Container, health: HealthPlan) -> DiegoError | None:
        """Wait until an adopted workload is healthy again; returns how it failed instead, framed and chained."""
        try:
            with call.hop("executor", self.cell_id, "adopt", ExecutorFailed) as inner:
                await self.until_healthy(inner, container, health, asyncio.Event())
        except DiegoError as failure:
            return failure
        return None

    async def watch(self, call: Call, container: Container, health: HealthPlan) -> DiegoError:
        """Return how a running workload failed, framed and chained, as soon as it does."""
        try:
            with call.hop("executor", self.cell_id, "watch", ExecutorFailed) as inner:
                began_s = self.clock.monotonic()
                loops = [self._first_failure(inner, container, check) for check in health.checks]
                ended: Exit | Unhealthy = await first_of(self._exit_of(container.handle), *loops)
                if isinstance(ended, Exit):
                    raise failures.exited(ended)
                healthy_s = self.clock.monotonic() - began_s
                log_tail = await self._log_tail(container.handle)
                raise failures.became_unhealthy(ended.result, healthy_s, ended.attempts, log_tail)
        except DiegoError as failure:
            return failure

    async def remove(self, call: Call, handle: str) -> None:
        """Let the process end within the grace time, then remove the container. Idempotent.

        A process that cannot be asked is killed: what counts is that the container is gone.
        """
        call = call.with_budget(self.pace.graceful_stop_s * 1000 + STOP_MARGIN_MS)
        await outcome_of(self.garden.stop(call, handle, self.pace.graceful_stop_s))
        await self.garden.destroy(call, handle)

    async def destroy(self, call: Call, handle: str) -> None:
        """Kill and remove the container at once: the undo of a start that nobody was told of. Idempotent."""
        await self.garden.destroy(call.with_budget(STOP_MARGIN_MS), handle)

    def has(self, handle: str) -> bool:
        """Whether a container of this name exists, in whatever state."""
        return any(container.handle == handle for container in self.garden.containers())

    async def _exit_of(self, handle: str) -> Exit:
        """How the process ended. A container that went away under us is a failure of its own."""
        try:
            return await self.garden.wait(handle)
        except ContainerNotFound as missing:
            raise ContainerVanished("the container is gone and nobody asked for that") from missing

    async def _first_healthy(
        self, call: Call, container: Container, health: HealthPlan, progress: CheckProgress
    ) -> Signal:
        if not health.checks:
            await self._settled(container.handle)
            return Signal.HEALTHY
        for pause_s in pace.startup_intervals_s(self.pace.startup_interval_max_s):
            result = await self.prober.probe_all(call, container, health.checks)
            progress.took(result)
            if result.ok:
                break
            await self.clock.sleep(pause_s)
        return Signal.HEALTHY

    async def _settled(self, handle: str) -> None:
        """Return when a process without a check counts as running: it waits for something, or has worked for long.

        A command that fails at once does so without a pause: a missing library, a wrong option, a syntax error. So
        what has gone to sleep has got beyond that, and most servers do within a few milliseconds; only for one that
        still works (or works again each time we look) a fixed time has to do. That is time of the processor: on a busy
        machine a process may not have executed its first instruction when as much has passed on the clock. One that
        has ended never counts as running, however late its end is told to us.
        """
        began_s, worked_s = self.clock.monotonic(), self.garden.worked_s(handle)
        while (activity := self.garden.activity(handle)) != "waiting":
            worked = self.garden.worked_s(handle) - worked_s >= self.pace.settle_s
            patient = self.clock.monotonic() - began_s < SETTLE_PATIENCE * self.pace.settle_s
            if activity == "busy" and (worked or not patient):
                return
            await self.clock.sleep(SETTLE_LOOK_S)

    async def _first_failure(self, call: Call, container: Container, check: Check) -> Unhealthy:
        """Ask at the check's pace until it says no. A check the host could not carry out says nothing."""
        interval_s = pace.liveness_interval_s(check.only(), self.pace.liveness_interval_s)
        attempts = 0
        while True:
            attempts += 1
            await self.clock.sleep(interval_s)
            result = await self.prober.probe(call.with_budget(LIVENESS_BUDGET_MS), container, check)
            if result.ran and not result.ok:
                return Unhealthy(result, attempts)

    async def _log_tail(self, handle: str) -> list[str]:
        """The app's last lines; failing to read them never hides the failure they were read for."""
        lines = await outcome_of(self._read_log(handle))
        return [] if isinstance(lines, DiegoError) else lines

    async def _read_log(self, handle: str) -> list[str]:
        return [line.text async for line in self.garden.logs(handle, APP_LOG_TAIL_LINES, False)]


async def _asked(stop_asked: asyncio.Event) -> Signal:
    await stop_asked.wait()
    return Signal.STOP_ASKED


