"""Which field of a model has which number on Diego's wire. Types come from the models; only what differs is said here.

A field that is not named has no place on that wire. docs/diego.md tells the differences to people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final

from attrs import field, frozen

from bbs.diego_api.envelopes import Fields
from diego_py.models import actions, actual_lrp, cell, checks, desired_lrp, egress, image, task, workload


@frozen
class NounMessage:
    """A model as a message."""

    noun: type[Any]
    numbers: Mapping[str, int]
    """The number of each field, by its JSON name, which is the name of the message's field, too."""
    name: str = ""
    """Diego's name of the message, where the model has another one."""
    extra: Fields = field(factory=dict)
    """Fields that the message has besides, and the model has not."""

    @property
    def message(self) -> str:
        return self.name or self.noun.__name__


ENUMERATIONS: Final[Mapping[type[Enum], Mapping[str, int]]] = {
    actual_lrp.Presence: {"ORDINARY": 0, "EVACUATING": 1, "SUSPECT": 2},
    actual_lrp.PreferredAddress: {"UNKNOWN": 0, "INSTANCE": 1, "HOST": 2},
    desired_lrp.UpdateStrategy: {"ROLLING": 0, "RECREATE": 1},
    image.DigestAlgorithm: {"DigestAlgorithmInvalid": 0, "SHA256": 1, "SHA512": 2},
    image.MediaType: {"MediaTypeInvalid": 0, "TGZ": 1, "TAR": 2, "ZIP": 3},
    image.LayerType: {"LayerTypeInvalid": 0, "SHARED": 1, "EXCLUSIVE": 2},
    workload.DynamicMetricTag: {"DynamicValueInvalid": 0, "INDEX": 1, "INSTANCE_GUID": 2},
    task.TaskState: {"Invalid": 0, "PENDING": 1, "RUNNING": 2, "COMPLETED": 3, "RESOLVING": 4},
}
"""Enumerations that are numbers there; the others are strings. A zero that is no value of ours is None."""

PRESENCE: Final = frozenset({"ResourceLimits.nofile", "ResourceLimits.nproc", "MetricTagValue.static"})
"""Scalars that may be absent and are told from their zero. `static` only so that an empty one is told from none."""
JSON_MAPS: Final = frozenset({"DesiredLRP.routes"})
"""JSON by name there: a message of its own that maps a name to the bytes of its JSON."""
JSON_TEXTS: Final = frozenset({"SharedDevice.mount_config"})
"""JSON as text there."""
EMPTY_IS_DEFAULT: Final = frozenset({"CheckDefinition.log_source"})
"""Texts whose empty value means what the model's default means."""
OLD_FIELDS: Final[Mapping[str, tuple[str, Callable[[int], int]]]] = {
    "TimeoutAction.timeout_ms": ("deprecated_timeout_ns", lambda ns: ns // 1_000_000),
    "DesiredLRP.start_timeout_ms": ("deprecated_start_timeout_s", lambda s: s * 1000),
}
"""What counts where the field itself is zero: an older one, and what that says."""
NOT_READ: Final = frozenset({"ResourceLimits.nproc"})
"""What Diego takes and does nothing with."""
NOT_EXECUTED: Final[Mapping[type[Any], tuple[str, str]]] = {
    actions.RunAction: ("volume_mounted_files", "use those of the definition"),
}
"""What a message may say and its model cannot: the field, which is refused when it is set, and what to do instead."""
UNPACKED: Final = frozenset({"DesiredLRP.ports", "SecurityGroupRule.ports"})

_ACTION_NUMBERS: Final = {"action": 1}

_WORKLOAD: Final = (
    NounMessage(actions.EnvironmentVariable, {"name": 1, "value": 2}),
    NounMessage(actions.ResourceLimits, {"nofile": 1, "nproc": 2}),
    NounMessage(
        actions.RunAction,
        {
            "path": 1,
            "args": 2,
            "dir": 3,
            "env": 4,
            "resource_limits": 5,
            "user": 6,
            "log_source": 7,
            "suppress_log_output": 8,
        },
        extra={"volume_mounted_files": (9, "repeated File")},
    ),
    NounMessage(
        actions.DownloadAction,
        {
            "artifact": 1,
            "from": 2,
            "to": 3,
            "cache_key": 4,
            "log_source": 5,
            "user": 6,
            "checksum_algorithm": 7,
            "checksum_value": 8,
        },
    ),
    NounMessage(actions.UploadAction, {"artifact": 1, "from": 2, "to": 3, "log_source": 4, "user": 5}),
    NounMessage(
        actions.TimeoutAction,
        {**_ACTION_NUMBERS, "log_source": 3, "timeout_ms": 4},
        extra={"deprecated_timeout_ns": (2, "int64")},
    ),
    NounMessage(
        actions.EmitProgressAction,
        {
            **_ACTION_NUMBERS,
            "start_message": 2,
            "success_message": 3,
            "failure_message_prefix": 4,
            "log_source": 5,
        },
    ),
    NounMessage(actions.TryAction, {**_ACTION_NUMBERS, "log_source": 2}),
    NounMessage(actions.ParallelAction, {"actions": 1, "log_source": 2}),
    NounMessage(actions.SerialAction, {"actions": 1, "log_source": 2}),
    NounMessage(actions.CodependentAction, {"actions": 1, "log_source": 2}),
    NounMessage(
        actions.Action,
        {
            "download": 1,
            "upload": 2,
            "run": 3,
            "timeout": 4,
            "emit_progress": 5,
            "try": 6,
            "parallel": 7,
            "serial": 8,
            "codependent": 9,
        },
    ),
    NounMessage(checks.TCPCheck, {"port": 1, "connect_timeout_ms": 2, "interval_ms": 3}),
    NounMessage(checks.HTTPCheck, {"port": 1, "request_timeout_ms": 2, "path": 3, "interval_ms": 4}),
    NounMessage(checks.Check, {"tcp": 1, "http": 2}),
    NounMessage(checks.CheckDefinition, {"checks": 1, "log_source": 2, "readiness_checks": 3}),
    NounMessage(egress.PortRange, {"start": 1, "end": 2}),
    NounMessage(egress.ICMPInfo, {"type": 1, "code": 2}),
    NounMessage(
        egress.SecurityGroupRule,
        {
            "protocol": 1,
            "destinations": 2,
            "ports": 3,
            "port_range": 4,
            "icmp_info": 5,
            "log": 6,
            "annotations": 7,
        },
    ),
    NounMessage(
        image.CachedDependency,
        {
            "name": 1,
            "from": 2,
            "to": 3,
            "cache_key": 4,
            "log_source": 5,
            "checksum_algorithm": 6,
            "checksum_value": 7,
        },
    ),
    NounMessage(
        image.ImageLayer,
        {
            "name": 1,
            "url": 2,
            "destination_path": 3,
            "layer_type": 4,
            "media_type": 5,
            "digest_algorithm": 6,
            "digest_value": 7,
        },
    ),
    NounMessage(image.SharedDevice, {"volume_id": 1, "mount_config": 2}),
    NounMessage(image.VolumeMount, {"driver": 1, "container_dir": 3, "mode": 6, "shared": 7}),
    NounMessage(image.VolumeMountedFile, {"path": 1, "content": 2}, "File"),
    NounMessage(workload.MetricTagValue, {"static": 1, "dynamic": 2}),
    NounMessage(workload.LogRateLimit, {"bytes_per_second": 1}),
    NounMessage(workload.Network, {"properties": 1}),
    NounMessage(workload.CertificateProperties, {"organizational_unit": 1}),
    NounMessage(workload.ModificationTag, {"epoch": 1, "index": 2}),
)

_LRPS: Final = (
    NounMessage(desired_lrp.Sidecar, {"action": 1, "disk_mb": 2, "memory_mb": 3}),
    NounMessage(
        desired_lrp.DesiredLRPDefinition,
        {
            "process_guid": 1,
            "domain": 2,
            "rootfs": 3,
            "instances": 4,
            "environment_variables": 5,
            "setup": 6,
            "action": 7,
            "start_timeout_ms": 27,
            "monitor": 9,
            "disk_mb": 10,
            "memory_mb": 11,
            "cpu_weight": 12,
            "privileged": 13,
            "ports": 14,
            "routes": 15,
            "log_source": 16,
            "log_guid": 17,
            "metrics_guid": 18,
            "annotation": 19,
            "egress_rules": 20,
            "cached_dependencies": 22,
            "legacy_download_user": 23,
            "trusted_system_certificates_path": 24,
            "volume_mounts": 25,
            "network": 26,
            "placement_tags": 28,
            "max_pids": 29,
            "certificate_properties": 30,
            "image_username": 31,
            "image_password": 32,
            "check_definition": 33,
            "image_layers": 34,
            "metric_tags": 35,
            "sidecars": 36,
            "log_rate_limit": 37,
            "volume_mounted_files": 38,
            "update_strategy": 39,
        },
        "DesiredLRP",
        {"deprecated_start_timeout_s": (8, "int64"), "modification_tag": (21, "ModificationTag")},
    ),
    NounMessage(actual_lrp.ActualLRPKey, {"process_guid": 1, "index": 2, "domain": 3}),
    NounMessage(actual_lrp.ActualLRPInstanceKey, {"instance_guid": 1, "cell_id": 2}),
    NounMessage(actual_lrp.PortMapping, {"container_port": 1, "host_port": 2}),
    NounMessage(
        actual_lrp.NetInfo,
        {
            "address": 1,
            "ports": 2,
            "instance_address": 3,
            "preferred_address": 4,
            "instance_ipv6_address": 5,
        },
        "ActualLRPNetInfo",
    ),
)

_TASKS: Final = (
    NounMessage(
        task.TaskDefinition,
        {
            "rootfs": 1,
            "environment_variables": 2,
            "action": 3,
            "disk_mb": 4,
            "memory_mb": 5,
            "cpu_weight": 6,
            "privileged": 7,
            "log_source": 8,
            "log_guid": 9,
            "metrics_guid": 10,
            "result_file": 11,
            "completion_callback_url": 12,
            "annotation": 13,
            "egress_rules": 14,
            "cached_dependencies": 15,
            "legacy_download_user": 16,
            "trusted_system_certificates_path": 17,
            "volume_mounts": 18,
            "network": 19,
            "placement_tags": 20,
            "max_pids": 21,
            "certificate_properties": 22,
            "image_username": 23,
            "image_password": 24,
            "image_layers": 25,
            "log_rate_limit": 26,
            "metric_tags": 27,
            "volume_mounted_files": 28,
        },
    ),
    NounMessage(task.TaskRequest, {"definition": 1, "task_guid": 2, "domain": 3}, "DesireTaskRequest"),
)

_CELLS: Final = (
    NounMessage(cell.CellCapacity, {"memory_mb": 1, "disk_mb": 2, "containers": 3}),
    NounMessage(cell.RootfsProvider, {"name": 1, "properties": 2}, "Provider"),
)

NOUN_MESSAGES: Final = (*_WORKLOAD, *_LRPS, *_TASKS, *_CELLS)
