"""The routes of reps and auctioneers, told by a rep that answers nothing but is sent the work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from attrs import define, field

from bbs.config import DiegoWireConfig
from bbs.convergence.backoff import CrashPolicy
from diego_py import wire
from diego_py.models.cell import CellCapacity, CellPresence, RootfsProvider
from diego_py.models.identifiers import CellId
from diego_py.models.work import AvailableResources, CellReport
from tests.chain.awaited import until
from tests.chain.installation import Installation
from tests.diego_api.client import DiegoClient, lrp, task

pytestmark = pytest.mark.chain

CELL = "rep-1"
NEVER_AGAIN = CrashPolicy(immediate_restarts=0, backoff_min_s=900.0)
ROOM = {"memory_mb": 1000, "disk_mb": 1000, "containers": 100}
NET = {"address": "192.0.2.1", "ports": [{"container_port": 8080, "host_port": 61000}]}


@define
class Rep:
    """A cell whose work is known to the test, which does in its place what it likes, over Diego's wire."""

    installation: Installation
    bbs: DiegoClient
    url: str = ""
    work: asyncio.Queue[dict[str, Any]] = field(factory=asyncio.Queue)
    stopped: list[str] = field(factory=list)
    over: asyncio.Event = field(factory=asyncio.Event)
    sequence: int = 0

    async def take(self, request: web.Request) -> web.Response:
        told = await request.json()
        for work in told.get("instances", [told]):
            await self.work.put(work)
        await self.over.wait()
        return web.Response(status=503)

    async def stop(self, request: web.Request) -> web.Response:
        guid = request.match_info["guid"]
        self.stopped.append(guid)
        return web.json_response({"instance_guid": guid, "existed": True})

    async def report(self) -> None:
        """Be live."""
        self.sequence += 1
        report = CellReport(
            presence=CellPresence(
                cell_id=CellId(CELL),
                url=self.url,
                capacity=CellCapacity(**ROOM),
                rootfs_provider_list=(RootfsProvider(name="preloaded", properties=("busybox",)),),
                boot_id="boot",
                home_id="home",
            ),
            sequence=self.sequence,
            available=AvailableResources(**ROOM),
        )
        path = f"/v1/cells/{CELL}/report"
        answer = await self.installation.request("POST", path, wire.to_builtins(report))
        assert answer.status == 200, answer.body

    async def offered(self, guid: str = "web", **changes: Any) -> dict[str, Any]:
        """Desire an LRP: the keys of its instance as a rep tells them."""
        await self.bbs.desire(lrp(guid, **changes))
        return self.keys(await self.work.get())

    def keys(self, work: dict[str, Any]) -> dict[str, Any]:
        return {
            "actual_lrp_key": {"process_guid": work["process_guid"], "index": work["index"], "domain": "shop"},
            "actual_lrp_instance_key": {"instance_guid": work["instance_guid"], "cell_id": CELL},
        }

    async def row(self, presence: int = 0) -> dict[str, Any]:
        rows = [row for row in await self.bbs.actual_lrps() if row["presence"] == presence]
        return rows[0] if rows else {}

    async def claim(self, keys: dict[str, Any]) -> None:
        await self.bbs.ask("/v1/actual_lrps/claim", claim_of(keys))

    async def start(self, keys: dict[str, Any], **changes: Any) -> None:
        await self.bbs.ask("/v1/actual_lrps/start.r1", {**keys, "actual_lrp_net_info": NET, **changes})


def claim_of(keys: dict[str, Any], **other: Any) -> dict[str, Any]:
    key = {**keys["actual_lrp_key"]}
    del key["domain"]
    return {**key, "actual_lrp_instance_key": {**keys["actual_lrp_instance_key"], **other}}


@pytest.fixture
async def rep(open_directory: Any, database_dsn: str) -> AsyncIterator[Rep]:
    async with Installation(open_directory, open_directory, database_dsn) as made, aiohttp.ClientSession() as session:
        await made.start_bbs(diego=DiegoWireConfig(listen_port=0), stop_grace_s=0.1, crash_policy=NEVER_AGAIN)
        assert made.bbs.diego_listener is not None
        rep = Rep(made, DiegoClient(f"http://127.0.0.1:{made.bbs.diego_listener.port}", session))
        app = web.Application()
        app.router.add_post("/v1/instances", rep.take)
        app.router.add_post("/v1/tasks", rep.take)
        app.router.add_post("/v1/instances/{guid}/stop", rep.stop)
        app.router.add_post("/v1/tasks/{guid}/stop", rep.stop)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        rep.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        await rep.report()
        yield rep
        rep.over.set()
        assert made.defects() == []
        await made.stop_bbs()
        await runner.cleanup()


async def test_claim_start_crash(rep: Rep) -> None:
    keys = await rep.offered()
    assert (await rep.row())["state"] == "UNCLAIMED"
    other = claim_of(keys, instance_guid="other")
    assert (await rep.bbs.refusal("/v1/actual_lrps/claim", other))[0] == "ActualLRPCannotBeClaimed"
    unknown = claim_of(keys, cell_id="none")
    assert (await rep.bbs.refusal("/v1/actual_lrps/claim", unknown))[0] == "ActualLRPCannotBeClaimed"
    await rep.claim(keys)
    await rep.claim(keys)
    row = await rep.row()
    assert row["state"] == "CLAIMED"
    assert row["actual_lrp_instance_key"] == keys["actual_lrp_instance_key"]
    failed = {"actual_lrp_key": keys["actual_lrp_key"], "error_message": "no room"}
    assert (await rep.bbs.refusal("/v1/actual_lrps/fail", failed))[0] == "ActualLRPCannotBeFailed"
    await rep.start(keys, Routable=False, availability_zone="z1")
    row = await rep.row()
    assert (row["state"], row["routable"], row["availability_zone"]) == ("RUNNING", False, "z1")
    assert row["actual_lrp_net_info"]["address"] == "192.0.2.1"
    assert row["actual_lrp_net_info"]["ports"][0]["host_port"] == 61000
    for routable in (True, False, True):
        await rep.start(keys, Routable=routable, availability_zone="z1")
        heard = await rep.row()
        assert (heard["routable"], heard["since"]) == (routable, row["since"])
        assert heard["modification_tag"]["index"] > row["modification_tag"]["index"]
    elsewhere = {**keys, "actual_lrp_instance_key": {"instance_guid": "x", "cell_id": CELL}}
    told = {**elsewhere, "actual_lrp_net_info": NET}
    assert (await rep.bbs.refusal("/v1/actual_lrps/start", told))[0] == "ActualLRPCannotBeStarted"
    assert (await rep.bbs.refusal("/v1/actual_lrps/crash", elsewhere))[0] == "ActualLRPCannotBeCrashed"
    await rep.bbs.ask("/v1/actual_lrps/crash", {**keys, "error_message": "APP/PROC/WEB: Exited with status 1"})
    row = await rep.row()
    assert (row["state"], row["crash_count"]) == ("CRASHED", 1)
    assert row["crash_reason"] == "APP/PROC/WEB: Exited with status 1"
    assert (await rep.bbs.refusal("/v1/actual_lrps/claim", claim_of(keys)))[0] == "ActualLRPCannotBeClaimed"


async def test_what_a_rep_tells_with_an_instance_is_kept(rep: Rep) -> None:
    keys = await rep.offered(metric_tags={"source_id": {"static": "of the LRP"}})
    await rep.start(keys)
    row = await rep.row()
    assert (row["metric_tags"], row["actual_lrp_internal_routes"]) == ({"source_id": "of the LRP"}, [])
    told = {"actual_lrp_internal_routes": [{"hostname": "a.apps.internal"}], "metric_tags": {"source_id": "told"}}
    for _ in range(2):
        await rep.start(keys, **told)
        known = await rep.row()
        assert told.items() <= known.items()
        assert known["modification_tag"]["index"] == row["modification_tag"]["index"] + 1, "news is told once"
    newer = {"actual_lrp_internal_routes": [], "metric_tags": {"source_id": "newer"}}
    path = "/v1/actual_lrps/evacuate_running.r1"
    assert await rep.bbs.ask(path, {**keys, "actual_lrp_net_info": NET, **newer}) == {"keep_container": True}
    assert newer.items() <= (await rep.row(presence=1)).items()
    replacement = rep.keys(await rep.work.get())
    await rep.start(replacement)
    assert (await rep.row())["metric_tags"] == {"source_id": "of the LRP"}
    await rep.bbs.ask("/v1/actual_lrps/crash", {**replacement, "error_message": "over"})
    assert (await rep.row())["metric_tags"] == {}


async def test_remove_and_fail(rep: Rep) -> None:
    keys = await rep.offered()
    failed = {"actual_lrp_key": keys["actual_lrp_key"], "error_message": "insufficient resources: memory"}
    await rep.bbs.ask("/v1/actual_lrps/fail", failed)
    row = await rep.row()
    assert (row["state"], row["placement_error"]) == ("UNCLAIMED", "insufficient resources: memory")
    keys = await rep.offered("second")
    await rep.start(keys)
    other = claim_of(keys, instance_guid="other")
    assert (await rep.bbs.refusal("/v1/actual_lrps/remove", other))[0] == "ActualLRPCannotBeRemoved"
    await rep.bbs.ask("/v1/actual_lrps/remove", claim_of(keys))
    assert (await rep.bbs.refusal("/v1/actual_lrps/remove", claim_of(keys)))[0] == "ResourceNotFound"


async def test_an_evacuated_instance_serves_until_another_one_runs(rep: Rep) -> None:
    keys = await rep.offered()
    await rep.start(keys)
    path = "/v1/actual_lrps/evacuate_running.r1"
    told = {**keys, "actual_lrp_net_info": NET}
    assert await rep.bbs.ask(path, told) == {"keep_container": True}
    evacuating = await rep.row(presence=1)
    assert evacuating["actual_lrp_instance_key"] == keys["actual_lrp_instance_key"]
    assert evacuating["state"] == "RUNNING"
    replacement = rep.keys(await rep.work.get())
    assert await rep.bbs.ask(path, told) == {"keep_container": True}
    group = (
        await rep.bbs.ask("/v1/actual_lrp_groups/get_by_process_guid_and_index", {"process_guid": "web", "index": 0})
    )["actual_lrp_group"]
    assert (group["instance"]["state"], group["evacuating"]["state"]) == ("UNCLAIMED", "RUNNING")
    await rep.start(replacement)
    assert await rep.bbs.ask(path, told) == {"keep_container": False}
    assert await rep.row(presence=1) == {}
    assert (await rep.row())["actual_lrp_instance_key"] == replacement["actual_lrp_instance_key"]


async def test_evacuate_claimed_stopped_and_crashed(rep: Rep) -> None:
    keys = await rep.offered()
    await rep.claim(keys)
    assert await rep.bbs.ask("/v1/actual_lrps/evacuate_claimed", keys) == {"keep_container": False}
    assert (await rep.row())["state"] == "UNCLAIMED"
    await rep.bbs.ask("/v1/desired_lrp/remove", {"process_guid": "web"})
    keys = await rep.offered("stops")
    await rep.start(keys)
    assert await rep.bbs.ask("/v1/actual_lrps/evacuate_stopped", keys) == {"keep_container": False}
    assert await rep.row() == {}
    keys = await rep.offered("crashes")
    await rep.start(keys)
    told = {**keys, "error_message": "gone"}
    assert await rep.bbs.ask("/v1/actual_lrps/evacuate_crashed", told) == {"keep_container": False}
    assert (await rep.row())["crash_reason"] == "gone"
    keys = await rep.offered("moves")
    await rep.start(keys)
    await rep.bbs.ask("/v1/actual_lrps/evacuate_running", keys)
    other = {**keys, "actual_lrp_instance_key": {"instance_guid": "x", "cell_id": CELL}}
    refused = await rep.bbs.refusal("/v1/actual_lrps/remove_evacuating", other)
    assert refused[0] == "ActualLRPCannotBeRemoved"
    await rep.bbs.ask("/v1/actual_lrps/remove_evacuating", keys)
    await rep.bbs.ask("/v1/actual_lrps/remove_evacuating", keys)
    assert await rep.row(presence=1) == {}


async def test_recreate_has_never_two_of_one_index(rep: Rep) -> None:
    keys = await rep.offered(update_strategy=1)
    await rep.start(keys)
    assert await rep.bbs.ask("/v1/actual_lrps/evacuate_running", keys) == {"keep_container": False}
    assert await rep.row(presence=1) == {}
    assert rep.keys(await rep.work.get())["actual_lrp_instance_key"] != keys["actual_lrp_instance_key"]


async def test_a_task_is_started_and_completed(rep: Rep) -> None:
    await rep.bbs.ask("/v1/tasks/desire.r2", task())
    await rep.work.get()
    here = {"task_guid": "job", "cell_id": CELL}
    done = {**here, "result": "42"}
    refused = await rep.bbs.refusal("/v1/tasks/complete", done)
    assert refused == ("InvalidStateTransition", "Cannot transition from Pending to Completed")
    assert (await rep.bbs.refusal("/v1/tasks/start", {**here, "cell_id": "none"}))[0] == "ResourceNotFound"
    assert await rep.bbs.ask("/v1/tasks/start", here) == {"should_start": True}
    assert await rep.bbs.ask("/v1/tasks/start", here) == {"should_start": False}
    refused = await rep.bbs.refusal("/v1/tasks/start", {**here, "cell_id": "other"})
    assert refused == ("InvalidStateTransition", "Cannot transition from Running to Running")
    await rep.report()
    assert (await rep.bbs.task("job"))["state"] == 2, "a report that does not name it loses nothing"
    refused = await rep.bbs.refusal("/v1/tasks/complete", {**done, "cell_id": "other"})
    assert refused == ("RunningOnDifferentCell", f"Running on cell {CELL} not other")
    await rep.bbs.ask("/v1/tasks/complete", done)
    found = await rep.bbs.task("job")
    assert (found["state"], found["failed"], found["result"], found["cell_id"]) == (3, False, "42", CELL)


async def test_the_fourth_rejection_fails_a_task(rep: Rep) -> None:
    await rep.bbs.ask("/v1/tasks/desire.r2", task())
    await rep.work.get()
    for number in range(4):
        await rep.bbs.ask("/v1/tasks/start", {"task_guid": "job", "cell_id": CELL})
        await rep.bbs.ask("/v1/tasks/reject", {"task_guid": "job", "rejection_reason": f"no {number}"})
        found = await rep.bbs.task("job")
        assert (found["state"], found["rejection_count"]) == ((3, 3) if number == 3 else (1, number + 1))
    assert (found["failed"], found["failure_reason"]) == (True, "no 3")
    refused = await rep.bbs.refusal("/v1/tasks/reject", {"task_guid": "job", "rejection_reason": "x"})
    assert refused[0] == "InvalidRequest"


async def test_a_task_that_is_failed(rep: Rep) -> None:
    await rep.bbs.ask("/v1/tasks/desire.r2", task())
    await rep.work.get()
    await rep.bbs.ask("/v1/tasks/fail", {"task_guid": "job", "failure_reason": "broken"})

    async def failed() -> dict[str, Any] | None:
        found = await rep.bbs.task("job")
        return found if found["failed"] else None

    assert (await until("it failed", failed))["failure_reason"] == "broken"
    refused = await rep.bbs.refusal("/v1/tasks/fail", {"task_guid": "job", "failure_reason": "x"})
    assert refused == ("InvalidStateTransition", "Cannot transition from Completed to Completed")
