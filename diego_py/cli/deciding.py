"""What convergence decided, as lines. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from diego_py.cli import instances
from diego_py.cli.lines import BAD, DIM, Line
from diego_py.clients.bbs_answers import Decision, Decisions
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState

SILENT_S = 60.0
"""Rounds come every few seconds; when none came for so long, nobody repairs anything."""


def about(decisions: Decisions, instance: ActualLRP, now: datetime) -> Iterator[Line]:
    """What was decided about one row of an instance; nothing when it is as it should be."""
    key = (instance.process_guid, instance.index, str(instance.presence))
    found = [item for item in decisions.items if (item.process_guid, item.index, item.presence) == key]
    if not found and instance.state is ActualLRPState.UNCLAIMED and instance.next_attempt_at is None:
        yield Line("     convergence: nothing yet: whoever asked for it has it placed")
    for item in found:
        yield line(item, now)


def lines(decisions: Decisions, now: datetime) -> list[Line]:
    """All that was decided, and when."""
    return [*(line(item, now) for item in decisions.items), *round_lines(decisions, now)]


def line(item: Decision, now: datetime) -> Line:
    """One decision."""
    due = "" if item.due_at is None else f"; due {instances.until(item.due_at, now).removeprefix('is ')}"
    return Line(f"     convergence: {item.decision}: {item.reason}{due}")


def round_lines(decisions: Decisions, now: datetime) -> Iterator[Line]:
    """When the last round was, and what held for all of it."""
    if decisions.decided_at is None:
        yield Line("convergence has not looked yet", BAD)
        return
    silent = (now - decisions.decided_at).total_seconds() > SILENT_S
    told = f"convergence last looked {instances.ago(decisions.decided_at, now)} ({decisions.leader.partition(':')[0]})"
    yield Line(f"{told}; nobody converges" if silent else told, BAD if silent else DIM)
    if decisions.valve:
        yield Line(f"it replaces nothing on vanished cells: {decisions.valve}", BAD)
    if decisions.omitted:
        yield Line(f"{decisions.omitted} more decisions are not told", DIM)
