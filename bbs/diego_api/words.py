"""Diego's words for why an instance is not placed, an app crashed, or a task failed. Pure.

Clients know them: they show them, and tell by them whether to try again. What Diego has no words for is told in ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from diego_py.errors import (
    BecameUnhealthy,
    NeverHealthy,
    NoCellFits,
    NoCells,
    OutOfMemory,
    ProcessExited,
    ResultMissing,
    ResultTooLarge,
    TaskCancelled,
    TaskExpired,
    TaskLost,
)

UNREACHABLE: Final = "unable to communicate to compatible cells"
REASON_CHARACTERS_MAX: Final = 1024
"""Diego's columns."""
_CUT: Final = "(truncated)"
_RESOURCES: Final = {"containers": "containers", "disk_mb": "disk", "memory_mb": "memory"}

_TASK_WORDS: Final = {
    TaskCancelled.code: "task was cancelled",
    TaskExpired.code: "not started within time limit",
    TaskLost.code: "cell disappeared before completion",
    ResultMissing.code: "failed to fetch result",
    ResultTooLarge.code: "failed to fetch result",
}


def placement_error(reason: str | None, failure: Mapping[str, Any] | None, tags: Sequence[str]) -> str:
    """Why nobody runs it yet. `tags`: the placement tags that it asks for."""
    if reason is None:
        return ""
    document = failure or {}
    if document.get("code") == NoCells.code:
        return UNREACHABLE
    if document.get("code") == NoCellFits.code:
        return short(_no_fit(reason, document.get("placement") or {}, tags))
    return short(reason)


def crash_reason(reason: str | None, failure: Mapping[str, Any] | None) -> str:
    """Why the app ended last."""
    if reason is None:
        return ""
    document = failure or {}
    evidence = document.get("evidence") or {}
    code, answer = document.get("code"), (evidence.get("check") or {}).get("answer", "")
    if code == NeverHealthy.code:
        elapsed_ms = (evidence.get("check") or {}).get("elapsed_ms", 0)
        return short(f"Instance never healthy after {duration(elapsed_ms)}: {answer}")
    if code == BecameUnhealthy.code:
        return short(f"Instance became unhealthy: {answer}")
    return short(_exited(code, reason, evidence))


def failure_reason(reason: str | None, failure: Mapping[str, Any] | None, tags: Sequence[str] = ()) -> str:
    """Why a task failed. `tags`: the placement tags that it asks for."""
    if reason is None:
        return ""
    document = failure or {}
    code = document.get("code")
    if code in (NoCells.code, NoCellFits.code):
        return placement_error(reason, failure, tags)
    chain = [frame.get("code") for frame in document.get("chain") or ()]
    known = next((_TASK_WORDS[link] for link in (code, *chain) if link in _TASK_WORDS), None)
    return known or short(_exited(code, reason, document.get("evidence") or {}))


def short(reason: str) -> str:
    """A reason as long as Diego's, cut as Diego cuts it."""
    return reason if len(reason) <= REASON_CHARACTERS_MAX else reason[: REASON_CHARACTERS_MAX - len(_CUT)] + _CUT


def duration(milliseconds: float) -> str:
    """Whole seconds as Go prints them: `1m0s`."""
    seconds = round(milliseconds / 1000)
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if seconds >= 60 else "") + f"{seconds % 60}s"


def _exited(code: Any, reason: str, evidence: Mapping[str, Any]) -> str:
    """`SOURCE: Exited with status N`; a process that a signal ended has the shell's status."""
    if code not in (ProcessExited.code, OutOfMemory.code):
        return reason
    status, signal = evidence.get("exit_status"), evidence.get("signal")
    number = 128 + signal if signal is not None else status
    if number is None:
        return reason
    source, marked, _ = reason.partition(": ")
    told = f"{source}: Exited with status {number}" if marked else f"Exited with status {number}"
    return f"{told} (out of memory)" if code == OutOfMemory.code else told


def _no_fit(reason: str, placement: Mapping[str, Any], tags: Sequence[str]) -> str:
    """The furthest stage that a cell reached: rootfs, volume drivers, tags, resources.

    Of resources those are named that every cell there is short of.
    """
    verdicts = placement.get("verdicts") or {}
    if lacking := verdicts.get("no_fit"):
        short = placement.get("short") or {}
        everywhere = sorted(_RESOURCES.get(name, name) for name, told in short.items() if told["cells"] == lacking)
        return "insufficient resources" + (f": {', '.join(everywhere)}" if everywhere else "")
    if verdicts.get("privileged") or verdicts.get("disk_limit"):
        return reason  # Diego asks neither
    if verdicts.get("placement_tags"):
        return f"found no compatible cell with {_tags_told(tags)}"
    if verdicts.get("volume_drivers"):
        return "found no compatible cell with required volume drivers"
    if verdicts.get("rootfs"):
        return "found no compatible cell for required rootfs"
    return UNREACHABLE


def _tags_told(tags: Sequence[str]) -> str:
    quoted = [f'"{tag}"' for tag in tags]
    if not quoted:
        return "no placement tags"
    if len(quoted) == 1:
        return f"placement tag {quoted[0]}"
    return f"placement tags {', '.join(quoted[:-1])} and {quoted[-1]}"
