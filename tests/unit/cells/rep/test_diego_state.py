"""A report in Diego's words."""

from __future__ import annotations

from typing import Any

import pytest

from cells.rep.asked import Asked
from cells.rep.diego_state import diego_state
from cells.rep.instances import Identity
from diego_py.models.cell import CellCapacity, CellPresence, RootfsProvider
from diego_py.models.identifiers import CellId, Domain, InstanceGuid, ProcessGuid, TaskGuid
from diego_py.models.task_work import CellTaskState, TaskReport
from diego_py.models.work import AvailableResources, CellReport, InstanceReport, InstanceState
from diego_py.models.workload import Resources


def instance(state: InstanceState) -> InstanceReport:
    return InstanceReport(
        process_guid=ProcessGuid("web"),
        index=2,
        domain=Domain("d"),
        instance_guid=InstanceGuid("i"),
        state=state,
        memory_mb=64,
        disk_mb=5,
    )


def task(state: CellTaskState) -> TaskReport:
    return TaskReport(
        task_guid=TaskGuid("job"), domain=Domain("d"), instance_guid=InstanceGuid("t"), state=state, memory_mb=7
    )


def report(*instances: InstanceReport, tasks: tuple[TaskReport, ...] = (), draining: bool = False) -> CellReport:
    return CellReport(
        presence=CellPresence(
            cell_id=CellId("cell-1"),
            url="https://cell-1.test:1801",
            zone="z1",
            capacity=CellCapacity(memory_mb=100, disk_mb=200, containers=3),
            rootfs_provider_list=(
                RootfsProvider(name="preloaded", properties=("a", "b")),
                RootfsProvider(name="docker"),
            ),
            placement_tags=("gpu",),
            optional_placement_tags=("ssd",),
            volume_drivers=("local",),
            draining=draining,
            boot_id="b",
        ),
        sequence=1,
        available=AvailableResources(memory_mb=36, disk_mb=195, containers=2),
        instances=instances,
        tasks=tasks,
    )


KNOWN = Identity(
    process_guid=ProcessGuid("web"),
    index=2,
    domain=Domain("d"),
    instance_guid=InstanceGuid("i"),
    resources=Resources(memory_mb=64, disk_mb=5, max_pids=9),
    asked=Asked(rootfs="preloaded:a", placement_tags=("gpu",), volume_drivers=("local",)),
)


def told(report: CellReport, *failed: InstanceGuid) -> dict[str, Any]:
    return diego_state(report, {KNOWN.instance_guid: KNOWN}.get, failed)


def test_the_whole_state() -> None:
    nothing = {"PlacementTags": [], "VolumeDrivers": [], "RootFs": "", "MaxPids": 0}
    asked = {"PlacementTags": ["gpu"], "VolumeDrivers": ["local"], "RootFs": "preloaded:a", "MaxPids": 9}
    assert told(report(instance(InstanceState.RUNNING), tasks=(task(CellTaskState.CREATED),))) == {
        "rep_url": "https://cell-1.test:1801",
        "cell_id": "cell-1",
        "cell_index": 0,
        "RootFSProviders": {
            "preloaded": {"type": "fixed_set", "set": {"a": {}, "b": {}}},
            "docker": {"type": "arbitrary"},
        },
        "AvailableResources": {"MemoryMB": 36, "DiskMB": 195, "Containers": 2},
        "TotalResources": {"MemoryMB": 100, "DiskMB": 200, "Containers": 3},
        "LRPs": [
            {
                "instance_guid": "i",
                "process_guid": "web",
                "index": 2,
                "domain": "d",
                "MemoryMB": 64,
                "DiskMB": 5,
                "state": "RUNNING",
                **asked,
            }
        ],
        "Tasks": [
            {"TaskGuid": "job", "Domain": "d", "MemoryMB": 7, "DiskMB": 0, "state": 2, "failed": False, **nothing}
        ],
        "StartingContainerCount": 1,
        "Zone": "z1",
        "Evacuating": False,
        "VolumeDrivers": ["local"],
        "PlacementTags": ["gpu"],
        "OptionalPlacementTags": ["ssd"],
        "ProxyMemoryAllocationMB": 0,
    }
    assert told(report(draining=True))["Evacuating"] is True


def test_a_task_that_failed_and_is_still_to_be_told() -> None:
    over = report(tasks=(task(CellTaskState.COMPLETED),))
    assert [told(over, *failed)["Tasks"][0]["failed"] for failed in ((), (InstanceGuid("t"),))] == [False, True]


@pytest.mark.parametrize("state", InstanceState)
def test_every_state_of_an_instance_has_a_word(state: InstanceState) -> None:
    found = told(report(instance(state)))
    assert found["LRPs"][0]["state"] in ("CLAIMED", "RUNNING", "SHUTDOWN")
    assert found["StartingContainerCount"] == (found["LRPs"][0]["state"] == "CLAIMED")


@pytest.mark.parametrize("state", CellTaskState)
def test_every_state_of_a_task_has_a_number(state: CellTaskState) -> None:
    assert told(report(tasks=(task(state),)))["Tasks"][0]["state"] in (1, 2, 3)
