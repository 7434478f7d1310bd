"""The life of a Task through Diego's wire alone, with real containers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bbs.config import DiegoWireConfig
from tests.chain.awaited import until, until_true
from tests.chain.conftest import in_order
from tests.chain.installation import Installation
from tests.chain.test_task_callbacks import Client
from tests.chain.test_task_callbacks import client as client
from tests.diego_api.client import DiegoClient, run, task

pytestmark = [pytest.mark.kernel, pytest.mark.chain]

PENDING, RUNNING, COMPLETED, RESOLVING = 1, 2, 3, 4


@pytest.fixture
async def installation(image_root: Path, open_directory: Path, database_dsn: str) -> AsyncIterator[Installation]:
    """Calls back also to this machine."""
    async with Installation(open_directory, image_root, database_dsn) as made:
        await made.start_bbs(diego=DiegoWireConfig(listen_port=0), callback_deny_networks=())
        yield made
        await in_order(made)


async def in_state(bbs: DiegoClient, state: int, task_guid: str = "job") -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        found = await bbs.task(task_guid)
        return found if found["state"] == state else None

    return await until(f"{task_guid} is in state {state}", look)


async def test_a_task_from_desire_to_deletion(installation: Installation, bbs: DiegoClient) -> None:
    node = await installation.start_cell(1)
    script = "echo done > /tmp/result"
    await bbs.ask("/v1/tasks/desire.r2", task(script=script, result_file="/tmp/result", annotation="note"))
    found = await in_state(bbs, COMPLETED)
    assert (found["failed"], found["failure_reason"], found["result"]) == (False, "", "done\n")
    assert (found["domain"], found["cell_id"], found["rejection_count"]) == ("shop", node.id, 0)
    assert found["created_at"] <= found["first_completed_at"] <= found["updated_at"]
    assert found["task_definition"]["annotation"] == "note"
    assert found["task_definition"]["action"] == {**NO_ACTION, **found_run(script)}
    refused = await bbs.refusal("/v1/tasks/delete", {"task_guid": "job"})
    assert refused == ("InvalidStateTransition", "Cannot transition from Completed to Resolving")
    await bbs.ask("/v1/tasks/resolving", {"task_guid": "job"})
    assert (await bbs.task("job"))["state"] == RESOLVING
    refused = await bbs.refusal("/v1/tasks/resolving", {"task_guid": "job"})
    assert refused == ("InvalidStateTransition", "Cannot transition from Resolving to Resolving")
    await bbs.ask("/v1/tasks/delete", {"task_guid": "job"})
    assert (await bbs.refusal("/v1/tasks/get_by_task_guid.r3", {"task_guid": "job"}))[0] == "ResourceNotFound"


NO_ACTION = dict.fromkeys(
    (f"{kind}_action" for kind in ("download", "upload", "run", "timeout", "emit_progress", "try")), None
) | dict.fromkeys((f"{kind}_action" for kind in ("parallel", "serial", "codependent")), None)


def found_run(script: str) -> dict[str, Any]:
    """What is read of the action of `run`, with all its fields."""
    nothing = {"dir": "", "env": [], "resource_limits": None, "log_source": "", "volume_mounted_files": []}
    return {"run_action": {**run(script)["run_action"], **nothing, "suppress_log_output": False}}


async def test_failed_and_cancelled(installation: Installation, bbs: DiegoClient) -> None:
    await installation.start_cell(1)
    await bbs.ask("/v1/tasks/desire.r2", task("bad", "exit 3"))
    found = await in_state(bbs, COMPLETED, "bad")
    assert (found["failed"], found["failure_reason"]) == (True, "Exited with status 3")
    await bbs.ask("/v1/tasks/desire.r2", task("long", "exec sleep 1000"))
    await in_state(bbs, RUNNING, "long")
    listed = (await bbs.ask("/v1/tasks/list.r3", {"domain": "shop"}))["tasks"]
    assert [(each["task_guid"], each["state"]) for each in listed] == [("bad", COMPLETED), ("long", RUNNING)]
    await bbs.ask("/v1/tasks/cancel", {"task_guid": "long"})
    found = await bbs.task("long")
    assert (found["state"], found["failed"], found["failure_reason"]) == (COMPLETED, True, "task was cancelled")
    await until_true("its container is gone", lambda: installation.left() == [])
    refused = await bbs.refusal("/v1/tasks/cancel", {"task_guid": "bad"})
    assert refused == ("InvalidStateTransition", "Cannot transition from Completed to Completed")
    missing = task("no-result", "true", result_file="/tmp/none")
    await bbs.ask("/v1/tasks/desire.r2", missing)
    found = await in_state(bbs, COMPLETED, "no-result")
    assert (found["failed"], found["failure_reason"]) == (True, "failed to fetch result")


async def test_the_callback_takes_the_task(installation: Installation, bbs: DiegoClient, client: Client) -> None:
    await installation.start_cell(1)
    await bbs.ask("/v1/tasks/desire.r2", task(script="exit 1", completion_callback_url=client.url))
    await until_true("it is called back", lambda: client.got)
    assert client.got[0]["task_guid"] == "job"
    assert client.got[0]["failed"] is True

    async def gone() -> bool:
        return not (await bbs.ask("/v1/tasks/list.r3"))["tasks"]

    await until("the task is deleted", gone)


async def test_a_task_that_nobody_takes(installation: Installation, bbs: DiegoClient) -> None:
    await bbs.ask("/v1/tasks/desire.r2", task())

    async def rejected() -> dict[str, Any] | None:
        found = await bbs.task("job")
        return found if found["rejection_reason"] else None

    found = await until("it is refused", rejected)
    assert found["state"] == PENDING
    assert found["rejection_reason"] == "unable to communicate to compatible cells"
    assert found["failure_reason"] == ""


async def test_the_request_id_is_the_trace_id(installation: Installation, bbs: DiegoClient) -> None:
    trace_id = "0123456789abcdef0123456789abcdef"
    dashed = "01234567-89ab-cdef-0123-456789abcdef"
    await bbs.ask("/v1/tasks/desire.r2", task(), X_Vcap_Request_Id=dashed)
    async with aiohttp.ClientSession() as session, session.get(f"{installation.url}/v1/failures") as response:
        assert response.status == 200
    assert f'"trace_id": "{trace_id}"' in installation.log_text
