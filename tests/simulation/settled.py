"""What has to be true some time after the last fault (facts of reliability: L1 to L3). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from attrs import frozen

from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, Presence
from diego_py.models.task import Task, TaskState

OVER: Final = (TaskState.COMPLETED, TaskState.RESOLVING)


@frozen
class Picture:
    """Everything at one moment."""

    now: datetime
    desired: Mapping[str, int]
    """Instances by process_guid."""
    rows: Mapping[tuple[str, int, str], ActualLRP]
    draining: frozenset[str]
    """Cells that are being emptied."""
    tasks: tuple[Task, ...]
    containers: frozenset[tuple[str, str]]
    """Cell and handle of every container there is."""
    running: frozenset[tuple[str, str]]
    """Those in which a user process runs."""

    def unsettled(self) -> str:
        """What is not as desired and is not explained either; nothing if all is well."""
        for key, row in self.rows.items():
            if why := self._stuck(key, row):
                return f"row {key[0]}/{key[1]} {why}"
        for guid, instances in self.desired.items():
            for index in range(instances):
                if (guid, index, Presence.ORDINARY.value) not in self.rows:
                    return f"row {guid}/{index} is missing"
        for task in self.tasks:
            if why := self._waits(task):
                return f"task {task.task_guid} {why}"
        placed = {(row.cell_id, row.instance_guid) for row in self.rows.values() if row.state is ActualLRPState.RUNNING}
        placed |= {(task.cell_id, task.instance_guid) for task in self.tasks if task.state is TaskState.RUNNING}
        if self.containers - placed:
            return f"containers without a row: {sorted(self.containers - placed)}"
        if placed - self.running:
            return f"rows without a container: {sorted(placed - self.running, key=repr)}"
        return ""

    def _waits(self, task: Task) -> str:
        """What somebody should have done about it."""
        if task.state is TaskState.PENDING and (task.next_attempt_at is None or task.next_attempt_at <= self.now):
            return "is PENDING and due"
        if task.state in OVER and task.definition.completion_callback_url:
            return f"is {task.state} and nobody was called back"
        return ""

    def _stuck(self, key: tuple[str, int, str], row: ActualLRP) -> str:
        """Why a row cannot stay as it is: each that does not run says why not and when it is tried again."""
        if key[1] >= self.desired.get(key[0], 0):
            return "is not desired"
        if row.presence is not Presence.ORDINARY:
            ordinary = self.rows.get((key[0], key[1], Presence.ORDINARY.value))
            waits = ordinary is not None and ordinary.state is not ActualLRPState.RUNNING
            return "" if waits and row.cell_id in self.draining else f"is {row.presence} still"
        if row.state is ActualLRPState.RUNNING:
            if row.cell_id in self.draining:
                return f"runs on {row.cell_id}, which drains"
            return "" if row.routable else "runs and is not routable"
        if row.state is ActualLRPState.CLAIMED:
            return "is only claimed"
        if row.state is ActualLRPState.UNCLAIMED and row.placement_error is None:
            return "waits without a reason"
        if row.next_attempt_at is None or row.next_attempt_at <= self.now:
            return f"is {row.state} and due"
        return ""
