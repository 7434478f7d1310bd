"""How the end of a workload becomes the error that tells it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import asdict, define, field

from cells.executor.checks.result import CheckResult
from cells.garden.spec import Exit
from diego_py.errors import (
    BecameUnhealthy,
    DiegoError,
    DiskExceeded,
    NeverHealthy,
    OutOfMemory,
    PidsExceeded,
    ProcessExited,
)

APP_LOG_TAIL_LINES = 20


@define
class CheckProgress:
    """What the checks have said so far."""

    attempts: int = 0
    last: CheckResult | None = field(default=None)

    def took(self, result: CheckResult) -> None:
        """Count one more round that ended with `result`."""
        self.attempts += 1
        self.last = result


def exited(exit_: Exit, source: str = "") -> DiegoError:
    """The process ended by itself; exit 0 too is a failure of something that shall run on, as in Diego.

    A limit that it met is named, if it failed: memory first, for there the kernel itself ended it. `source` marks the
    lines of one of several processes.
    """
    evidence = {
        "exit_status": exit_.status,
        "signal": exit_.signal,
        "oom_killed": exit_.oom_killed,
        "app_log_tail": list(exit_.log_tail),
        "cgroup": dict(exit_.cgroup),
    }
    if exit_.disk is not None:
        evidence["disk"] = asdict(exit_.disk)
    told = f"{source}: {_told(exit_)}" if source else _told(exit_)
    if exit_.status == 0:
        return ProcessExited(told, evidence=evidence)
    if exit_.oom_killed:
        return OutOfMemory(f"{told} (out of memory)", evidence=evidence)
    if exit_.disk is not None and exit_.disk.full:
        return DiskExceeded(f"{told} (its disk was full)", evidence=evidence)
    if exit_.cgroup.get("pids_refused", 0) > 0:
        return PidsExceeded(f"{told} (refused a process beyond its limit)", evidence=evidence)
    return ProcessExited(told, evidence=evidence)


def done(log_tail: Sequence[str]) -> ProcessExited:
    """All that there was to do was done, in a workload that shall run on."""
    return ProcessExited("its action came to its end", evidence={"exit_status": 0, "app_log_tail": list(log_tail)})


def never_healthy(timeout_s: float, progress: CheckProgress, log_tail: Sequence[str]) -> NeverHealthy:
    """The start timeout passed first."""
    evidence = check_evidence(progress, timeout_s, log_tail)
    return NeverHealthy(f"not healthy within {timeout_s:g} s", evidence=evidence)


def became_unhealthy(result: CheckResult, healthy_s: float, attempts: int, log_tail: Sequence[str]) -> BecameUnhealthy:
    """One check failed on an instance that was healthy."""
    progress = CheckProgress(attempts, result)
    evidence = check_evidence(progress, healthy_s, log_tail)
    return BecameUnhealthy(f"the {result.kind} check failed after {healthy_s:.0f} s", evidence=evidence)


def check_evidence(progress: CheckProgress, elapsed_s: float, log_tail: Sequence[str]) -> dict[str, Any]:
    """What the last check said, and the app's last lines."""
    last = progress.last
    check = None
    if last is not None:
        check = {"kind": last.kind, "target": last.target, "answer": last.answer}
    told = {**(check or {"answer": "no check was done"}), "attempts": progress.attempts}
    return {"check": {**told, "elapsed_ms": round(elapsed_s * 1000)}, "app_log_tail": list(log_tail)}


def _told(exit_: Exit) -> str:
    if exit_.status is None:
        return "ended while nobody was there to see how"
    if exit_.signal is not None:
        return f"killed by signal {exit_.signal}"
    return f"exited with status {exit_.status}"
