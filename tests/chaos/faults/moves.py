"""Faults in the middle of what moves instances: a rolling replacement, the emptying of a cell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.chain.answers import Answer, well_formed
from tests.chain.awaited import until
from tests.chain.definitions import lrp, task
from tests.chaos.canary import APP, served, url_of
from tests.chaos.faults.scene import MARGIN_S, Scene, fault
from tests.chaos.load import WITNESS

INSTANCES = 4
BUDGET_MS = 20_000
"""Of a replacement: its key lasts so long when whoever works on it dies."""
DRAIN_S = 60
TASK_S = 2
TASKS = 4


@fault("a rolling replacement of 4 instances, asked all the time: no request fails")
async def rolled_under_requests(scene: Scene) -> None:
    await _app(scene, "rolled")
    async with scene.canary("rolled", "old", "new"):
        answer = await _replace(scene, "rolled", "key", await scene.follower(), budget_ms=BUDGET_MS * 4)
    assert answer is not None
    assert answer.status == 200, answer.body
    await _is_whole(scene, "rolled")
    await scene.delete("rolled")


@fault("a cell is emptied by five requests at once, with tasks on it, asked all the time: no request fails")
async def emptied_under_requests(scene: Scene) -> None:
    await _app(scene, "emptied")
    async with scene.canary("emptied", "old"), asyncio.TaskGroup() as group:
        tasks = [group.create_task(_run_task(scene, number)) for number in range(TASKS)]
        path = f"/v1/cells/cell-1/evacuate?timeout_s={DRAIN_S}"
        names = [*scene.fleet.bbses]
        async with scene.within("the cell is empty", 30.0), asyncio.TaskGroup() as asking:
            answers = [
                asking.create_task(scene.fleet.request("POST", path, {}, names[number % len(names)]))
                for number in range(5)
            ]
    assert {answer.result().status for answer in answers} == {200}, [answer.result().body for answer in answers]
    assert {answer.result().json["state"] for answer in tasks} == {"COMPLETED"}
    await _is_empty(scene, "cell-1", "emptied")
    await _readmit(scene, "cell-1")
    await scene.delete("emptied")


@fault("SIGKILL of the BBS that carries a rolling replacement, half-way; the same key gets the outcome at another BBS")
async def rolling_bbs_killed(scene: Scene) -> None:
    await _app(scene, "carried")
    carrier = await scene.follower()
    async with scene.canary("carried", "old", "new"):
        async with _replacing(scene, "carried", carrier) as replacing:
            await scene.fleet.bbses[carrier].kill()
            assert await replacing is None
        async with scene.within("the same key gets the outcome", BUDGET_MS / 1000 * 2 + MARGIN_S):
            outcome = await _outcome(scene, "carried", "carried", await scene.follower())
        assert outcome.status == 200, outcome.body
        await scene.fleet.bbses[carrier].start()
        await scene.fleet.ready(scene.fleet.bbses[carrier])
        await _is_whole(scene, "carried")
    await scene.delete("carried")


@fault("SIGKILL of the cell that starts a new instance of a rolling replacement; it comes back")
async def rolling_cell_killed(scene: Scene) -> None:
    await _app(scene, "started")
    carrier = await scene.follower()
    async with _replacing(scene, "started", carrier) as replacing:
        cell = scene.fleet.cells[await _where_one_starts(scene, "started")]
        await cell.kill()
        await cell.start()
        first = await replacing
    assert first is not None
    await _one_of_both(scene, "started", first)
    again = await _outcome(scene, "started", "started", carrier)
    assert (again.status, again.body) == (first.status, first.body)
    await scene.fleet.ready(cell)
    await scene.fleet.live(cell.name)
    async with scene.within("asked again, all of it is new", 60.0):
        if first.status != 200:
            answer = await _outcome(scene, "started", "another", carrier, budget_ms=BUDGET_MS * 4)
            assert answer.status == 200, answer.body
        await _is_whole(scene, "started")
    await scene.delete("started")


@fault("SIGKILL of the BBS that carries `diego drain`, half-way; the command is given again")
async def emptying_bbs_killed(scene: Scene) -> None:
    await _app(scene, "moved")
    carrier = await scene.follower()
    async with scene.canary("moved", "old"):
        async with _draining(scene, "moved", carrier) as draining:
            await scene.fleet.bbses[carrier].kill()
            assert await draining.wait() != 0
        await _drained(scene, "cell-1", await scene.follower())
        await _is_empty(scene, "cell-1", "moved")
        await scene.fleet.bbses[carrier].start()
        await scene.fleet.ready(scene.fleet.bbses[carrier])
    await _readmit(scene, "cell-1")
    await scene.delete("moved")


@fault("SIGKILL of a cell while it is emptied (`diego drain`); it comes back and is emptied all the same")
async def emptied_cell_killed(scene: Scene) -> None:
    await _cell_killed_while_emptying(scene, "left", "cell-1")


@fault("SIGKILL of the cell that takes up what another one is emptied of (`diego drain`); it comes back")
async def receiving_cell_killed(scene: Scene) -> None:
    await _cell_killed_while_emptying(scene, "taken", "cell-2")


async def _cell_killed_while_emptying(scene: Scene, guid: str, cell_id: str) -> None:
    await _app(scene, guid)
    carrier = await scene.follower()
    async with _draining(scene, guid, carrier) as draining:
        cell = scene.fleet.cells[cell_id]
        await cell.kill()
        await cell.start()
        await scene.fleet.ready(cell)
        await scene.fleet.live(cell_id)
        await draining.wait()
    await _drained(scene, "cell-1", carrier)
    await _is_empty(scene, "cell-1", guid)
    await _readmit(scene, "cell-1")
    await scene.running(guid, INSTANCES, 60)
    await scene.delete(guid)


async def _app(scene: Scene, guid: str) -> None:
    await scene.steady(guid, script=served("old"), instances=INSTANCES, **APP)


async def _replace(
    scene: Scene, guid: str, key: str, member: str, budget_ms: int = BUDGET_MS
) -> Answer | None:
    """Ask for the new definition; None when the connection broke."""
    body = lrp(guid, served("new"), memory_mb=16, instances=INSTANCES, **APP)
    headers = {"Idempotency_Key": f"{guid}-{key}", "X_Budget_Ms": str(budget_ms)}
    try:
        return await scene.fleet.request("PUT", f"/v1/desired_lrps/{guid}?strategy=rolling", body, member, **headers)
    except aiohttp.ClientError:
        return None


async def _outcome(scene: Scene, guid: str, key: str, member: str, budget_ms: int = BUDGET_MS) -> Answer:
    """The answer that stays, however often it takes to get it."""

    async def look() -> Answer | None:
        answer = await _replace(scene, guid, key, member, budget_ms)
        in_flight = answer is not None and answer.status == 409 and answer.json["code"] == "idempotency_in_flight"
        if in_flight:
            await asyncio.sleep(0.2)
        return None if in_flight else answer

    return await until(f"the outcome of {key}", look, 120)


@asynccontextmanager
async def _replacing(scene: Scene, guid: str, carrier: str) -> AsyncIterator[asyncio.Task[Answer | None]]:
    """A replacement that is half done: some of the instances are new ones that run, others are not."""
    before = {str(row["instance_guid"]) for row in await scene.rows(guid)}
    async with asyncio.TaskGroup() as group:
        replacing = group.create_task(_replace(scene, guid, guid, carrier))
        await until("half of it is replaced", lambda: _is_half_moved(scene, guid, before), 60)
        yield replacing


@asynccontextmanager
async def _draining(scene: Scene, guid: str, carrier: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`diego drain cell-1`, which has moved some of the instances and not all."""
    before = {str(row["instance_guid"]) for row in await scene.rows(guid)}
    draining = await scene.fleet.command(carrier, "drain", "cell-1", "--timeout", str(DRAIN_S))
    try:
        await until("something is being moved", lambda: _is_half_moved(scene, guid, before), 60)
        yield draining
    finally:
        if draining.returncode is None:
            draining.kill()
            await draining.wait()


async def _is_half_moved(scene: Scene, guid: str, before: set[str]) -> bool:
    rows = await scene.rows(guid)
    new = [row for row in rows if row["state"] == "RUNNING" and str(row["instance_guid"]) not in before]
    return bool(new) and any(row["presence"] == "EVACUATING" for row in rows)


async def _where_one_starts(scene: Scene, guid: str) -> str:
    """The cell that has claimed the newest instance, or runs it."""

    async def look() -> str:
        rows = [row for row in await scene.rows(guid) if row["presence"] == "ORDINARY" and row["cell_id"]]
        claimed = [row for row in rows if row["state"] == "CLAIMED"]
        return str(claimed[0]["cell_id"]) if claimed else ""

    return await until("a new instance is being started", look, 60)


async def _drained(scene: Scene, cell_id: str, member: str) -> None:
    """The same command once more; now it is done."""
    async with scene.within("`diego drain`, given again, empties it", DRAIN_S):
        again = await scene.fleet.command(member, "drain", cell_id, "--timeout", str(DRAIN_S))
        said, _ = await again.communicate()
    assert again.returncode == 0, said.decode()


async def _is_empty(scene: Scene, cell_id: str, guid: str) -> None:
    """Nothing of it is there, and it runs elsewhere."""
    assert scene.fleet.containers_on_host()[cell_id] == set()
    await scene.running(guid, INSTANCES, 60, but_not=frozenset({cell_id}))


async def _readmit(scene: Scene, cell_id: str) -> None:
    undo = await scene.fleet.command(await scene.follower(), "drain", cell_id, "--undo")
    said, _ = await undo.communicate()
    assert undo.returncode == 0, said.decode()


async def _is_whole(scene: Scene, guid: str) -> None:
    """Every instance is a new one, there is no other, and each answers so."""
    answer = await scene.fleet.request("GET", f"/v1/actual_lrps?process_guid={guid}", member=await scene.follower())
    rows = answer.json["items"]
    assert [(row["index"], row["presence"], row["state"]) for row in rows] == _all_running(), rows
    assert await _words(scene, rows) == ["new"] * INSTANCES


async def _one_of_both(scene: Scene, guid: str, answer: Answer) -> None:
    """Whatever was answered: each index is served, by the old or by the new definition, and 200 says by the new."""
    if answer.status == 200:
        await _is_whole(scene, guid)
        return
    well_formed(answer)

    async def served_all() -> bool:
        told = await scene.fleet.request("GET", f"/v1/actual_lrps?process_guid={guid}", member=await scene.follower())
        rows = [row for row in told.json["items"] if row["state"] == "RUNNING"]
        return {row["index"] for row in rows} == set(range(INSTANCES)) and len(rows) == INSTANCES and bool(
            set(await _words(scene, rows)) <= {"old", "new"}
        )

    async with scene.within("each instance is the old or the new one, and serves", 60.0):
        await until("each index is served once", served_all, 90)


def _all_running() -> list[tuple[int, str, str]]:
    return [(index, "ORDINARY", "RUNNING") for index in range(INSTANCES)]


async def _words(scene: Scene, rows: Sequence[dict[str, Any]]) -> list[str]:
    answers = [await scene.fleet.get(url_of(row["net_info"])) for row in rows]
    return [answer.body.decode().strip() for answer in answers]


async def _run_task(scene: Scene, number: int) -> Answer:
    guid = f"{scene.load.name}-beside-{number}"
    body = task(guid, f"echo {WITNESS} {guid}; sleep {TASK_S}", memory_mb=16)
    answer = await scene.fleet.request("POST", "/v1/tasks?until=completed", body, await scene.follower())
    assert answer.status == 201, answer.body
    scene.load.clients[0].begun.add(guid)
    return answer
