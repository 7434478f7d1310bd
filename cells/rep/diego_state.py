"""A cell's report as Diego's cells tell their state (`GET /state`), for tools that ask cells themselves. Pure."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any, Final, Protocol

from cells.rep.asked import NOTHING, Asked
from diego_py.models.cell import RootfsProvider
from diego_py.models.identifiers import InstanceGuid
from diego_py.models.task_work import CellTaskState, TaskReport
from diego_py.models.work import AvailableResources, CellReport, InstanceReport, InstanceState
from diego_py.models.workload import Resources

_LRP_STATES: Final[Mapping[InstanceState, str]] = {
    InstanceState.RESERVED: "CLAIMED",
    InstanceState.CREATED: "CLAIMED",
    InstanceState.RUNNING: "RUNNING",
    InstanceState.STOPPING: "SHUTDOWN",
}
_TASK_STATES: Final[Mapping[CellTaskState, int]] = {
    CellTaskState.RESERVED: 1,
    CellTaskState.CREATED: 2,
    CellTaskState.RUNNING: 2,
    CellTaskState.STOPPING: 2,
    CellTaskState.COMPLETED: 3,
}
_STARTING: Final = (InstanceState.RESERVED, InstanceState.CREATED, CellTaskState.RESERVED, CellTaskState.CREATED)


class Workload(Protocol):
    """What is known of a workload besides its report."""

    @property
    def resources(self) -> Resources: ...
    @property
    def asked(self) -> Asked: ...


def diego_state(
    report: CellReport, known: Callable[[InstanceGuid], Workload | None], failed: Container[InstanceGuid]
) -> dict[str, Any]:
    """The JSON of Diego's CellState. A task that is over and whose end is still to be told is not `known` any more."""
    presence, capacity = report.presence, report.presence.capacity
    states = [*(instance.state for instance in report.instances), *(task.state for task in report.tasks)]
    total = AvailableResources(memory_mb=capacity.memory_mb, disk_mb=capacity.disk_mb, containers=capacity.containers)
    return {
        "rep_url": presence.url,
        "cell_id": presence.cell_id,
        "cell_index": 0,
        "RootFSProviders": {provider.name: _provider(provider) for provider in presence.rootfs_provider_list},
        "AvailableResources": _resources(report.available),
        "TotalResources": _resources(total),
        "LRPs": [_lrp(instance, known(instance.instance_guid)) for instance in report.instances],
        "Tasks": [_task(task, known(task.instance_guid), task.instance_guid in failed) for task in report.tasks],
        "StartingContainerCount": sum(state in _STARTING for state in states),
        "Zone": presence.zone,
        "Evacuating": presence.draining,
        "VolumeDrivers": list(presence.volume_drivers),
        "PlacementTags": list(presence.placement_tags),
        "OptionalPlacementTags": list(presence.optional_placement_tags),
        "ProxyMemoryAllocationMB": 0,
    }


def _provider(provider: RootfsProvider) -> dict[str, Any]:
    if not provider.properties:
        return {"type": "arbitrary"}
    return {"type": "fixed_set", "set": {name: {} for name in provider.properties}}


def _resources(amounts: AvailableResources) -> dict[str, int]:
    return {"MemoryMB": amounts.memory_mb, "DiskMB": amounts.disk_mb, "Containers": amounts.containers}


def _lrp(instance: InstanceReport, known: Workload | None) -> dict[str, Any]:
    return {
        "instance_guid": instance.instance_guid,
        "process_guid": instance.process_guid,
        "index": instance.index,
        "domain": instance.domain,
        **_asked(instance.memory_mb, instance.disk_mb, known),
        "state": _LRP_STATES[instance.state],
    }


def _task(task: TaskReport, known: Workload | None, failed: bool) -> dict[str, Any]:
    return {
        "TaskGuid": task.task_guid,
        "Domain": task.domain,
        **_asked(task.memory_mb, task.disk_mb, known),
        "state": _TASK_STATES[task.state],
        "failed": failed,
    }


def _asked(memory_mb: int, disk_mb: int, known: Workload | None) -> dict[str, Any]:
    asked = NOTHING if known is None else known.asked
    return {
        "PlacementTags": list(asked.placement_tags),
        "VolumeDrivers": list(asked.volume_drivers),
        "RootFs": asked.rootfs,
        "MemoryMB": memory_mb,
        "DiskMB": disk_mb,
        "MaxPids": 0 if known is None else known.resources.max_pids,
    }
