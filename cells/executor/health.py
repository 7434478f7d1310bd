"""Whether a workload is healthy: from its begin to the first time, and from then on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NoReturn

from attrs import define, evolve, frozen

from cells.executor.backend import ContainerBackend
from cells.executor.checks import pace as intervals
from cells.executor.checks.monitor import IN_BACKGROUND, check_monitor
from cells.executor.checks.prober import Prober
from cells.executor.checks.result import CheckResult
from cells.executor.failures import CheckProgress
from cells.executor.outcomes import first_of
from cells.executor.pace import Pace
from cells.executor.plan import Workload
from cells.executor.programs import Program
from cells.executor.steps.step import Step
from cells.garden.spec import Container
from diego_py.call import Call
from diego_py.service.clock import Clock

LIVENESS_BUDGET_MS = 60_000.0
SETTLE_LOOK_S = 0.001
"""Between two looks at what a process that was just started does."""
SETTLE_PATIENCE = 40
"""A process gets so many settle times of waiting to use one of processor time: then it works, but is given too little
of the machine to show it."""
READY = "Container passed the readiness check. Container marked ready and added to route pool."
NOT_READY = "Container failed the readiness check. Container marked not ready and removed from route pool."

Probe = Callable[[Call], Awaitable[CheckResult]]


@frozen
class Unhealthy:
    """A liveness check failed."""

    result: CheckResult
    attempts: int


@frozen
class Watched:
    """A workload in its container."""

    container: Container
    workload: Workload
    program: Program


@define
class Health:
    """Asks workloads how they are."""

    garden: ContainerBackend
    prober: Prober
    clock: Clock
    pace: Pace

    async def first(self, call: Call, watched: Watched, progress: CheckProgress) -> None:
        """Return with the first round of checks that all pass; without a check, once a process of it has settled."""
        await watched.program.site.begun.wait()
        probe = self._round(watched)
        if probe is None:
            return await self._settled(watched.container.handle)
        for pause_s in intervals.startup_intervals_s(self.pace.startup_interval_max_s):
            result = await probe(call)
            progress.took(result)
            if result.ok:
                break
            await self.clock.sleep(pause_s)

    async def failure(self, call: Call, watched: Watched) -> Unhealthy:
        """The first check of a healthy workload that fails. Never returns for one without a check."""
        return await first_of(*(self._first_failure(call, pause_s, probe) for pause_s, probe in self._loops(watched)))

    async def is_ready(self, call: Call, watched: Watched) -> bool | None:
        """Whether all readiness checks pass now; True without any, None when the host could not carry one out."""
        checks = watched.workload.health.readiness
        if not checks:
            return True
        result = await self.prober.probe_all(_apart(call), watched.container, checks)
        return result.ok if result.ran else None

    async def readiness(self, call: Call, watched: Watched, ready: bool, changed: Callable[[bool], None]) -> NoReturn:
        """Ask for ever, and tell `changed` whenever the answer is another one than before.

        As often as at start-up while it is not ready, at the pace of the checks while it is.
        """
        health, default_s = watched.workload.health, self.pace.liveness_interval_s
        calm_s = min(intervals.liveness_interval_s(check.only(), default_s) for check in health.readiness)
        while True:
            if await self.is_ready(call, watched) is (not ready):
                ready = not ready
                watched.program.site.tell(health.log_source, READY if ready else NOT_READY)
                changed(ready)
            await self.clock.sleep(calm_s if ready else self.pace.startup_interval_max_s)

    def is_checked(self, workload: Workload) -> bool:
        return bool(workload.health.checks) or workload.monitor is not None

    def _round(self, watched: Watched) -> Probe | None:
        """All checks at once, or the monitor action where there are none."""
        checks, monitor = watched.workload.health.checks, watched.workload.monitor
        if checks:
            return lambda call: self.prober.probe_all(call, watched.container, checks)
        return None if monitor is None else partial(_ask_monitor, monitor=monitor, watched=watched)

    def _loops(self, watched: Watched) -> list[tuple[float, Probe]]:
        """Each check with its own pause."""
        default_s, container, monitor = self.pace.liveness_interval_s, watched.container, watched.workload.monitor
        if checks := watched.workload.health.checks:
            probes = [partial(self.prober.probe, container=container, check=check) for check in checks]
            pauses = [intervals.liveness_interval_s(check.only(), default_s) for check in checks]
            return list(zip(pauses, probes, strict=True))
        assert monitor is not None
        return [(default_s, partial(_ask_monitor, monitor=monitor, watched=watched))]

    async def _first_failure(self, call: Call, interval_s: float, probe: Probe) -> Unhealthy:
        """Ask at this pace until it says no. A check the host could not carry out says nothing."""
        attempts = 0
        while True:
            attempts += 1
            await self.clock.sleep(interval_s)
            result = await probe(_apart(call))
            if result.ran and not result.ok:
                return Unhealthy(result, attempts)

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


async def _ask_monitor(call: Call, monitor: Step, watched: Watched) -> CheckResult:
    """Beside an own process that has ended nothing can be executed: what that left says by living that it is well."""
    if watched.program.has_ended and not watched.workload.goes_on:
        return IN_BACKGROUND
    return await check_monitor(call, monitor, watched.program.site)


def _apart(call: Call) -> Call:
    """A call of its own for each time: the one that watches would remember them all for as long as it lasts."""
    return evolve(call.with_budget(LIVENESS_BUDGET_MS), here=None)
