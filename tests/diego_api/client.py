"""A client of Diego's BBS as others write them: paths, messages and error types as Diego has them."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp
from attrs import define

from tests.diego_api.protobuf import SCHEMA, decode, encode

LIFECYCLE = "ActualLRPLifecycleResponse"
DESIRED = "DesiredLRPLifecycleResponse"
TASK = "TaskLifecycleResponse"
ROUTES: Mapping[str, tuple[str | None, str]] = {
    "/v1/ping": (None, "PingResponse"),
    "/v1/domains/list": (None, "DomainsResponse"),
    "/v1/domains/upsert": ("UpsertDomainRequest", "UpsertDomainResponse"),
    "/v1/actual_lrps/list": ("ActualLRPsRequest", "ActualLRPsResponse"),
    "/v1/actual_lrps/list_by_process_guids": (
        "ActualLRPsByProcessGuidsRequest",
        "ActualLRPsByProcessGuidsResponse",
    ),
    "/v1/actual_lrps/retire": ("RetireActualLRPRequest", LIFECYCLE),
    "/v1/desired_lrps/list.r2": ("DesiredLRPsRequest", "DesiredLRPsResponse"),
    "/v1/desired_lrps/list.r3": ("DesiredLRPsRequest", "DesiredLRPsResponse"),
    "/v1/desired_lrps/get_by_process_guid.r2": ("DesiredLRPByProcessGuidRequest", "DesiredLRPResponse"),
    "/v1/desired_lrps/get_by_process_guid.r3": ("DesiredLRPByProcessGuidRequest", "DesiredLRPResponse"),
    "/v1/desired_lrp_scheduling_infos/list": ("DesiredLRPsRequest", "DesiredLRPSchedulingInfosResponse"),
    "/v1/desired_lrp_scheduling_infos/get_by_process_guid": (
        "DesiredLRPByProcessGuidRequest",
        "DesiredLRPSchedulingInfoByProcessGuidResponse",
    ),
    "/v1/desired_lrp_routing_infos/list": ("DesiredLRPsRequest", "DesiredLRPsResponse"),
    "/v1/desired_lrp/desire.r2": ("DesireLRPRequest", DESIRED),
    "/v1/desired_lrp/update": ("UpdateDesiredLRPRequest", DESIRED),
    "/v1/desired_lrp/remove": ("RemoveDesiredLRPRequest", DESIRED),
    "/v1/tasks/list.r2": ("TasksRequest", "TasksResponse"),
    "/v1/tasks/list.r3": ("TasksRequest", "TasksResponse"),
    "/v1/tasks/get_by_task_guid.r2": ("TaskByGuidRequest", "TaskResponse"),
    "/v1/tasks/get_by_task_guid.r3": ("TaskByGuidRequest", "TaskResponse"),
    "/v1/tasks/desire.r2": ("DesireTaskRequest", TASK),
    "/v1/tasks/cancel": ("TaskGuidRequest", TASK),
    "/v1/tasks/resolving": ("TaskGuidRequest", TASK),
    "/v1/tasks/delete": ("TaskGuidRequest", TASK),
    "/v1/cells/list.r1": (None, "CellsResponse"),
    "/v1/actual_lrps/claim": ("ClaimActualLRPRequest", LIFECYCLE),
    "/v1/actual_lrps/start": ("StartActualLRPRequest", LIFECYCLE),
    "/v1/actual_lrps/start.r1": ("StartActualLRPRequest", LIFECYCLE),
    "/v1/actual_lrps/crash": ("CrashActualLRPRequest", LIFECYCLE),
    "/v1/actual_lrps/fail": ("FailActualLRPRequest", LIFECYCLE),
    "/v1/actual_lrps/remove": ("RemoveActualLRPRequest", LIFECYCLE),
    "/v1/actual_lrps/remove_evacuating": ("RemoveEvacuatingActualLRPRequest", "RemoveEvacuatingActualLRPResponse"),
    "/v1/actual_lrps/evacuate_claimed": ("EvacuateClaimedActualLRPRequest", "EvacuationResponse"),
    "/v1/actual_lrps/evacuate_crashed": ("EvacuateCrashedActualLRPRequest", "EvacuationResponse"),
    "/v1/actual_lrps/evacuate_stopped": ("EvacuateStoppedActualLRPRequest", "EvacuationResponse"),
    "/v1/actual_lrps/evacuate_running": ("EvacuateRunningActualLRPRequest", "EvacuationResponse"),
    "/v1/actual_lrps/evacuate_running.r1": ("EvacuateRunningActualLRPRequest", "EvacuationResponse"),
    "/v1/tasks/start": ("StartTaskRequest", "StartTaskResponse"),
    "/v1/tasks/fail": ("FailTaskRequest", TASK),
    "/v1/tasks/reject": ("RejectTaskRequest", TASK),
    "/v1/tasks/complete": ("CompleteTaskRequest", TASK),
    "/v1/actual_lrp_groups/list": ("ActualLRPGroupsRequest", "ActualLRPGroupsResponse"),
    "/v1/actual_lrp_groups/list_by_process_guid": (
        "ActualLRPGroupsByProcessGuidRequest",
        "ActualLRPGroupsResponse",
    ),
    "/v1/actual_lrp_groups/get_by_process_guid_and_index": (
        "ActualLRPGroupByProcessGuidAndIndexRequest",
        "ActualLRPGroupResponse",
    ),
}
ERRORS = {number: name for name, number in SCHEMA["Error"].enums["Type"].items()}


class DiegoRefused(Exception):
    """The answer has an error."""

    def __init__(self, type: str, message: str) -> None:
        super().__init__(type, message)
        self.type, self.message = type, message


@define
class DiegoClient:
    """Asks a BBS."""

    url: str
    session: aiohttp.ClientSession
    tls: ssl.SSLContext | None = None

    async def raw(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> tuple[int, str, bytes]:
        """Status, content type and body of the answer to any bytes."""
        told = {"Content-Type": "application/x-protobuf", **(headers or {})}
        async with self.session.post(self.url + path, data=body, headers=told, ssl=self.tls or True) as response:
            return response.status, response.content_type, await response.read()

    async def ask(self, path: str, request: Mapping[str, Any] | None = None, **headers: str) -> dict[str, Any]:
        """What a route answers. Raises DiegoRefused for an error inside of the answer."""
        takes, gives = ROUTES[path]
        body = b"" if takes is None else encode(takes, request or {})
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        status, kind, answer = await self.raw(path, body, named)
        assert (status, kind) == (200, "application/x-protobuf"), (status, kind, answer)
        message = decode(gives, answer)
        error = message.pop("error", None)
        if error is not None:
            raise DiegoRefused(ERRORS[error["type"]], error["message"])
        return message

    async def refusal(self, path: str, request: Mapping[str, Any] | None = None) -> tuple[str, str]:
        """Type and message of the error that a route must answer."""
        try:
            answer = await self.ask(path, request)
        except DiegoRefused as refused:
            return refused.type, refused.message
        raise AssertionError(f"{path} answered {answer}")

    async def desire(self, lrp: Mapping[str, Any]) -> None:
        await self.ask("/v1/desired_lrp/desire.r2", {"desired_lrp": lrp})

    async def actual_lrps(self, **wanted: Any) -> list[dict[str, Any]]:
        answer = await self.ask("/v1/actual_lrps/list", wanted)
        found: list[dict[str, Any]] = answer["actual_lrps"]
        return found

    async def desired_lrps(self, **wanted: Any) -> list[dict[str, Any]]:
        answer = await self.ask("/v1/desired_lrps/list.r3", wanted)
        found: list[dict[str, Any]] = answer["desired_lrps"]
        return found

    async def task(self, task_guid: str) -> dict[str, Any]:
        answer = await self.ask("/v1/tasks/get_by_task_guid.r3", {"task_guid": task_guid})
        task: dict[str, Any] = answer["task"]
        return task


def run(script: str, **changes: Any) -> dict[str, Any]:
    """An action that runs a shell script."""
    return {"run_action": {"path": "/bin/sh", "args": ["-c", script], "user": "root", **changes}}


def lrp(process_guid: str = "web", script: str = "exec sleep 1000", **changes: Any) -> dict[str, Any]:
    """A DesiredLRP with one instance."""
    return {
        "process_guid": process_guid,
        "domain": "shop",
        "root_fs": "preloaded:busybox",
        "instances": 1,
        "memory_mb": 64,
        "action": run(script),
        "metric_tags": {"source_id": {"static": "app"}},
        **changes,
    }


def task(task_guid: str = "job", script: str = "exit 0", **changes: Any) -> dict[str, Any]:
    """A DesireTaskRequest."""
    definition = {"root_fs": "preloaded:busybox", "memory_mb": 64, "action": run(script), **changes}
    return {"task_guid": task_guid, "domain": "shop", "task_definition": definition}
