"""The monitor action of old clients: done in the container, its success is health. What it writes is in the log."""

from __future__ import annotations

from cells.executor.checks.result import CheckResult
from cells.executor.steps.step import Site, Step
from diego_py.call import Call
from diego_py.errors import BudgetSpent, DiegoError, Fault

KIND = "monitor"
TARGET = "the monitor action"
IN_BACKGROUND = CheckResult(KIND, TARGET, True, "not done: the container's own process went to the background")


async def check_monitor(call: Call, monitor: Step, site: Site) -> CheckResult:
    """Do it once. What is not the app's fault says nothing about it."""
    try:
        async with call.within_budget("monitor"):
            await monitor.perform(call, site)
    except BudgetSpent:
        return CheckResult(KIND, TARGET, False, f"not done within {call.budget.total_ms:.0f} ms")
    except DiegoError as failure:
        root = failure.root
        return CheckResult(KIND, TARGET, False, f"{root.code}: {root.message}", ran=root.fault is Fault.APP)
    return CheckResult(KIND, TARGET, True, "succeeded")
