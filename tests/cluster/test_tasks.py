"""Processes are killed while a task runs: it ran once, and whoever wants its end gets it."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from tests import orphans
from tests.chain.answers import Answer
from tests.chain.awaited import until
from tests.chain.definitions import task
from tests.cluster.conftest import NewSite
from tests.cluster.site import Site

pytestmark = pytest.mark.cluster

SCRIPT = "echo ran; sleep 2.7; echo -n 42 > /tmp/result"


def job(**changes: Any) -> dict[str, Any]:
    return task(script=SCRIPT, result_file="/tmp/result", **changes)


async def run(site: Site, wanted: dict[str, Any], query: str = "", **headers: str) -> Answer:
    return await site.request("POST", f"/v1/tasks{query}", wanted, headers)


def ran(site: Site) -> int:
    """How often the process began, on whichever cell and under whichever name."""
    logs = site.cluster.state_dir.glob("cells/*/logs/*.log")
    return sum(log.read_bytes().count(b" F ran\n") for log in logs)


@pytest.fixture
async def site(new_site: NewSite) -> Site:
    """Its presences outlast a restart of a cell: a task whose cell is gone for longer is lost."""
    return await new_site()


async def test_the_end_is_told_by_the_next_boot_of_the_cell(site: Site) -> None:
    """It ended while its cell was away."""
    answer = await run(site, job())
    assert answer.status == 201, answer.body
    cell_id = answer.json["cell_id"]
    await site.cluster.kill_cell(cell_id)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(site.request("GET", "/v1/tasks/job?until=completed"))
        await site.cluster.start_cell(cell_id)
    ended = waiting.result().json
    assert (ended["state"], ended["failed"], ended["result"]) == ("COMPLETED", False, "42"), ended
    assert (ended["cell_id"], ended["rejection_count"]) == (cell_id, 0)
    assert ran(site) == 1
    assert site.defects() == []


async def test_whoever_waited_at_a_killed_bbs_asks_again(site: Site) -> None:
    """With the same key, he gets the end of the same task."""

    async def asked() -> Answer | None:
        try:
            told = {"Idempotency-Key": "k", "X-Budget-Ms": "8000"}
            answer = await run(site, job(), "?until=completed", **told)
            return None if answer.status == 409 and answer.json["code"] == "idempotency_in_flight" else answer
        except aiohttp.ClientError:
            return None

    async def runs() -> bool:
        found = await site.request("GET", "/v1/tasks?state=RUNNING")
        return bool(found.json["items"]) and ran(site) == 1

    async with asyncio.TaskGroup() as group:
        first = group.create_task(asked())
        await until("it runs", runs)
        await site.cluster.kill_bbs()
    assert first.result() is None
    await site.cluster.start_bbs()
    again = await until("an answer that stays", asked, 90.0)
    assert (again.status, again.json["result"]) == (201, "42"), again.body
    assert ran(site) == 1
    assert site.defects() == []


async def test_many_processes_cannot_be_taken_up_and_are_not_run_again(site: Site) -> None:
    """Only the cell process held them together; the document says so."""
    steps = [{"run": {"path": "/bin/sh", "args": ["-c", line], "user": "root"}} for line in ("echo ran", "sleep 100")]
    wanted = job()
    wanted["definition"] |= {"action": {"serial": {"actions": steps}}, "result_file": ""}
    answer = await run(site, wanted)
    assert answer.status == 201, answer.body
    cell_id = answer.json["cell_id"]

    async def began() -> bool:
        return ran(site) == 1

    await until("the first step ran", began)
    await site.cluster.kill_cell(cell_id)
    await site.cluster.start_cell(cell_id)
    ended = (await site.request("GET", "/v1/tasks/job?until=completed")).json
    assert (ended["state"], ended["failed"]) == ("COMPLETED", True), ended
    assert ended["failure"]["code"] == "rep.task_interrupted"
    assert ran(site) == 1

    async def is_gone() -> bool:
        orphans.reap_dead()  # what the killed cell left dies with the container, and is ours to reap
        return await site.containers(cell_id) == set()

    await until("its container is gone", is_gone)
