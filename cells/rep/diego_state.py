"""A cell's report as Diego's cells tell their state (`GET /state`), for tools that ask cells themselves. Pure.

What Diego tells of a workload for its auctioneer alone (rootfs, tags, pids) is not in a report, and is empty here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from diego_py.models.cell import RootfsProvider
from diego_py.models.task_work import CellTaskState, TaskReport
from diego_py.models.work import AvailableResources, CellReport, InstanceReport, InstanceState

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


def diego_state(report: CellReport) -> dict[str, Any]:
    """The JSON of Diego's CellState."""
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
        "LRPs": [_lrp(instance) for instance in report.instances],
        "Tasks": [_task(task) for task in report.tasks],
        "StartingContainerCount": sum(state in _STARTING for state in states),
        "Zone": presence.zone,
        "Evacuating": presence.draining,
        "VolumeDrivers": [],
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


def _lrp(instance: InstanceReport) -> dict[str, Any]:
    return {
        "instance_guid": instance.instance_guid,
        "process_guid": instance.process_guid,
        "index": instance.index,
        "domain": instance.domain,
        **_asked(instance.memory_mb, instance.disk_mb),
        "state": _LRP_STATES[instance.state],
    }


def _task(task: TaskReport) -> dict[str, Any]:
    return {
        "TaskGuid": task.task_guid,
        "Domain": task.domain,
        **_asked(task.memory_mb, task.disk_mb),
        "state": _TASK_STATES[task.state],
        "failed": False,
    }


def _asked(memory_mb: int, disk_mb: int) -> dict[str, Any]:
    return {
        "PlacementTags": [],
        "VolumeDrivers": [],
        "RootFs": "",
        "MemoryMB": memory_mb,
        "DiskMB": disk_mb,
        "MaxPids": 0,
    }
