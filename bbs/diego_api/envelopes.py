"""Messages of Diego's wire that are no models of ours: requests, responses, and views that are put together for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Fields = Mapping[str, tuple[int, str]]
"""By name: the number, and the type: `string`, `bytes`, `bool`, `int32`, `int64`, a message, `optional X`, `repeated X`
or `map X` (string to X)."""

_ERROR: Final[Fields] = {"error": (1, "Error")}
_PROCESS_GUID: Final[Fields] = {"process_guid": (1, "string")}
_KEYS: Final[Fields] = {"actual_lrp_key": (1, "ActualLRPKey"), "actual_lrp_instance_key": (2, "ActualLRPInstanceKey")}
_CRASH: Final[Fields] = {**_KEYS, "error_message": (3, "string")}
_RUNNING: Final[Fields] = {**_KEYS, "actual_lrp_net_info": (3, "ActualLRPNetInfo")}
_ONE_INSTANCE: Final[Fields] = {
    **_PROCESS_GUID,
    "index": (2, "int32"),
    "actual_lrp_instance_key": (3, "ActualLRPInstanceKey"),
}
_TASK_GUID: Final[Fields] = {"task_guid": (1, "string")}

ACTUAL_LRPS: Final[Mapping[str, Fields]] = {
    "ActualLRPInternalRoute": {"hostname": (1, "string")},
    "ActualLRP": {
        "key": (1, "ActualLRPKey"),
        "instance_key": (2, "ActualLRPInstanceKey"),
        "net_info": (3, "ActualLRPNetInfo"),
        "crash_count": (4, "int32"),
        "crash_reason": (5, "string"),
        "state": (6, "string"),
        "placement_error": (7, "string"),
        "since": (8, "int64"),
        "modification_tag": (9, "ModificationTag"),
        "presence": (10, "int32"),
        "internal_routes": (11, "repeated ActualLRPInternalRoute"),
        "metric_tags": (12, "map string"),
        "routable": (13, "optional bool"),
        "availability_zone": (14, "string"),
    },
    "ActualLRPGroup": {"instance": (1, "ActualLRP"), "evacuating": (2, "ActualLRP")},
    "ActualLRPLifecycleResponse": _ERROR,
    "ActualLRPGroupsResponse": {**_ERROR, "actual_lrp_groups": (2, "repeated ActualLRPGroup")},
    "ActualLRPGroupResponse": {**_ERROR, "actual_lrp_group": (2, "ActualLRPGroup")},
    "ActualLRPGroupsRequest": {"domain": (1, "string"), "cell_id": (2, "string")},
    "ActualLRPGroupsByProcessGuidRequest": _PROCESS_GUID,
    "ActualLRPGroupByProcessGuidAndIndexRequest": {**_PROCESS_GUID, "index": (2, "int32")},
    "ClaimActualLRPRequest": _ONE_INSTANCE,
    "StartActualLRPRequest": {
        **_RUNNING,
        "internal_routes": (4, "repeated ActualLRPInternalRoute"),
        "metric_tags": (5, "map string"),
        "routable": (6, "optional bool"),
        "availability_zone": (7, "string"),
    },
    "CrashActualLRPRequest": _CRASH,
    "FailActualLRPRequest": {"actual_lrp_key": (1, "ActualLRPKey"), "error_message": (2, "string")},
    "RetireActualLRPRequest": {"actual_lrp_key": (1, "ActualLRPKey")},
    "RemoveActualLRPRequest": _ONE_INSTANCE,
    "ActualLRPsResponse": {**_ERROR, "actual_lrps": (2, "repeated ActualLRP")},
    "ActualLRPsRequest": {
        "domain": (1, "string"),
        "cell_id": (2, "string"),
        "process_guid": (3, "string"),
        "index": (4, "optional int32"),
    },
    "ActualLRPsByProcessGuidsRequest": {"process_guids": (1, "repeated string")},
}

DESIRED_LRPS: Final[Mapping[str, Fields]] = {
    "ProtoRoutes": {"routes": (1, "map bytes")},
    "DesiredLRPKey": {**_PROCESS_GUID, "domain": (2, "string"), "log_guid": (3, "string")},
    "DesiredLRPResource": {
        "memory_mb": (1, "int32"),
        "disk_mb": (2, "int32"),
        "rootfs": (3, "string"),
        "max_pids": (4, "int32"),
    },
    "VolumePlacement": {"driver_names": (1, "repeated string")},
    "DesiredLRPSchedulingInfo": {
        "key": (1, "DesiredLRPKey"),
        "annotation": (2, "string"),
        "instances": (3, "int32"),
        "resource": (4, "DesiredLRPResource"),
        "routes": (5, "ProtoRoutes"),
        "modification_tag": (6, "ModificationTag"),
        "volume_placement": (7, "VolumePlacement"),
        "placement_tags": (8, "repeated string"),
    },
    "DesiredLRPUpdate": {
        "instances": (1, "optional int32"),
        "routes": (2, "ProtoRoutes"),
        "annotation": (3, "optional string"),
        "metric_tags": (4, "map MetricTagValue"),
        "image_username": (5, "optional string"),
        "image_password": (6, "optional string"),
    },
    "DesiredLRPLifecycleResponse": _ERROR,
    "DesiredLRPsResponse": {**_ERROR, "desired_lrps": (2, "repeated DesiredLRP")},
    "DesiredLRPsRequest": {
        "domain": (1, "string"),
        "process_guids": (2, "repeated string"),
        "app_guids": (3, "repeated string"),
    },
    "DesiredLRPResponse": {**_ERROR, "desired_lrp": (2, "DesiredLRP")},
    "DesiredLRPSchedulingInfosResponse": {
        **_ERROR,
        "desired_lrp_scheduling_infos": (2, "repeated DesiredLRPSchedulingInfo"),
    },
    "DesiredLRPSchedulingInfoByProcessGuidResponse": {
        **_ERROR,
        "desired_lrp_scheduling_info": (2, "DesiredLRPSchedulingInfo"),
    },
    "DesiredLRPByProcessGuidRequest": _PROCESS_GUID,
    "DesireLRPRequest": {"desired_lrp": (1, "DesiredLRP")},
    "UpdateDesiredLRPRequest": {**_PROCESS_GUID, "update": (2, "DesiredLRPUpdate")},
    "RemoveDesiredLRPRequest": _PROCESS_GUID,
}

TASKS: Final[Mapping[str, Fields]] = {
    "Task": {
        "definition": (1, "TaskDefinition"),
        "task_guid": (2, "string"),
        "domain": (3, "string"),
        "created_at": (4, "int64"),
        "updated_at": (5, "int64"),
        "first_completed_at": (6, "int64"),
        "state": (7, "int32"),
        "cell_id": (8, "string"),
        "result": (9, "string"),
        "failed": (10, "bool"),
        "failure_reason": (11, "string"),
        "rejection_count": (12, "int32"),
        "rejection_reason": (13, "string"),
    },
    "TaskLifecycleResponse": _ERROR,
    "StartTaskRequest": {**_TASK_GUID, "cell_id": (2, "string")},
    "StartTaskResponse": {**_ERROR, "should_start": (2, "bool")},
    "FailTaskRequest": {**_TASK_GUID, "failure_reason": (2, "string")},
    "RejectTaskRequest": {**_TASK_GUID, "rejection_reason": (2, "string")},
    "TaskGuidRequest": _TASK_GUID,
    "CompleteTaskRequest": {
        **_TASK_GUID,
        "cell_id": (2, "string"),
        "failed": (3, "bool"),
        "failure_reason": (4, "string"),
        "result": (5, "string"),
    },
    "TasksRequest": {"domain": (1, "string"), "cell_id": (2, "string")},
    "TasksResponse": {**_ERROR, "tasks": (2, "repeated Task")},
    "TaskResponse": {**_ERROR, "task": (2, "Task")},
}

OTHERS: Final[Mapping[str, Fields]] = {
    "Error": {"type": (1, "int32"), "message": (2, "string")},
    "PingResponse": {"available": (1, "bool")},
    "DomainsResponse": {**_ERROR, "domains": (2, "repeated string")},
    "UpsertDomainResponse": _ERROR,
    "UpsertDomainRequest": {"domain": (1, "string"), "ttl": (2, "int64")},
    "CellPresence": {
        "cell_id": (1, "string"),
        "rep_address": (2, "string"),
        "zone": (3, "string"),
        "capacity": (4, "CellCapacity"),
        "rootfs_provider_list": (5, "repeated Provider"),
        "placement_tags": (6, "repeated string"),
        "optional_placement_tags": (7, "repeated string"),
        "rep_url": (8, "string"),
    },
    "CellsResponse": {**_ERROR, "cells": (2, "repeated CellPresence")},
    "EvacuationResponse": {**_ERROR, "keep_container": (2, "bool")},
    "EvacuateInstanceRequest": _KEYS,
    "EvacuateRunningActualLRPRequest": {
        **_RUNNING,
        "internal_routes": (5, "repeated ActualLRPInternalRoute"),
        "metric_tags": (6, "map string"),
    },
    "EvacuateCrashedActualLRPRequest": _CRASH,
}

ENVELOPES: Final = {**ACTUAL_LRPS, **DESIRED_LRPS, **TASKS, **OTHERS}
