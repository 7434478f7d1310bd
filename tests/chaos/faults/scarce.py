"""Faults that break nothing whole: packets and connections that go missing, room that is not there any more."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import aiohttp
import asyncpg

from tests.chain.answers import well_formed
from tests.chaos.faults.scene import BUDGET_MS, MARGIN_S, Scene, fault

WRITERS = 4
ACKS_S = 0.4
"""How long writers write before Postgres is killed."""
LOST_PERCENT = 10
CONNECTIONS_MAX = 300


@fault("SIGKILL of Postgres amid acknowledged changes, again and again: every one of them is there afterwards")
async def acknowledged_outlives_postgres(scene: Scene) -> None:
    names = [f"kept-{number}" for number in range(WRITERS)]
    for name in names:
        await scene.steady(name, instances=0)
    acked = dict.fromkeys(names, 0)
    for _ in range(2 + scene.repeats):
        stopped = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(_write(scene, name, acked, stopped))
            await asyncio.sleep(ACKS_S)
            await scene.fleet.kill_postgres()
            stopped.set()
        await scene.fleet.start_postgres()
        for member in scene.fleet.bbses.values():
            await scene.fleet.ready(member)
        last = {name: await _annotation(scene, name) for name in names}
        assert all(last[name] in (acked[name], acked[name] + 1) for name in names), (last, acked)
        acked = last
    scene.count("acknowledged changes lost", 0, sum(acked.values()))
    for name in names:
        await scene.delete(name)


async def _annotation(scene: Scene, name: str) -> int:
    answer = await scene.fleet.request("GET", f"/v1/desired_lrps/{name}")
    assert answer.status == 200, answer.body
    return int(answer.json["definition"]["annotation"] or 0)


async def _write(scene: Scene, name: str, acked: dict[str, int], stopped: asyncio.Event) -> None:
    """One change after the other; after one that was not acknowledged, no more."""
    while not stopped.is_set():
        body, member = {"annotation": str(acked[name] + 1)}, scene.random.choice([*scene.fleet.bbses])
        try:
            answer = await scene.fleet.request("PATCH", f"/v1/desired_lrps/{name}", body, member)
        except aiohttp.ClientError:
            return
        if answer.status != 200:
            well_formed(answer)
            return
        acked[name] += 1


@fault("every tenth packet between all machines is lost")
async def packets_lost(scene: Scene) -> None:
    before = {row["instance_guid"] for row in await scene.steady("lossy", instances=2)}
    for name in (*scene.fleet.bbses, *scene.fleet.cells, "postgres"):
        scene.fleet.network.lose_packets(name, LOST_PERCENT)
    try:
        await asyncio.sleep(scene.timing.presence_ttl_s * 1.5)
        if scene.timing.presence_ttl_s > 10:  # a shorter presence may run out by it
            assert {row["instance_guid"] for row in await scene.rows("lossy")} == before
    finally:
        scene.fleet.network.heal()
    await scene.running("lossy", 2, 60)
    await scene.delete("lossy")


@fault("every connection to the cells is reset; then the network is well again")
async def cells_refuse(scene: Scene) -> None:
    for name in scene.fleet.bbses:
        for cell_id in scene.fleet.cells:
            scene.fleet.network.refuse(name, cell_id)
    try:
        async with scene.within("a request is answered", BUDGET_MS / 1000 + 1.0):
            answer = await scene.create("refused", budget_ms=BUDGET_MS)
        assert answer.status >= 500, answer.body
        well_formed(answer)
    finally:
        scene.fleet.network.heal()
    async with scene.within("it runs once", scene.timing.presence_ttl_s * 2 + MARGIN_S):
        await scene.running("refused", 1, 90)
    await scene.delete("refused")


@fault("strangers take every connection that Postgres has")
async def connections_eaten(scene: Scene) -> None:
    leader = await scene.leader()
    async with AsyncExitStack() as taken:
        scene.fleet.harms.begin()
        try:
            for _ in range(CONNECTIONS_MAX):
                await taken.enter_async_context(scene.fleet.database())
        except asyncpg.TooManyConnectionsError:
            pass
        else:
            raise AssertionError(f"Postgres has more than {CONNECTIONS_MAX} connections")
        for number in range(3):
            async with scene.within("a request is answered", BUDGET_MS / 1000 + 1.0):
                answer = await scene.create(f"eaten-{number}", "bbs-1", budget_ms=BUDGET_MS)
            assert answer.status in (201, 503, 504), answer.body
            if answer.status != 201:
                well_formed(answer)
    assert await scene.leader() == leader
    for member in scene.fleet.bbses.values():
        await scene.fleet.ready(member)
    for number in range(3):
        await scene.delete(f"eaten-{number}")


@fault("a cell comes back with less memory than it had: what runs there goes on, nothing is added above it")
async def cell_comes_back_smaller(scene: Scene) -> None:
    rows = await scene.steady("fits", instances=2)
    before = {row["instance_guid"] for row in rows}
    assert {row["cell_id"] for row in rows} == {"cell-1", "cell-2"}
    cell = scene.fleet.cells["cell-1"]
    usual = scene.fleet.set_memory("cell-1", 16)
    try:
        await cell.kill()
        await cell.start()
        async with scene.within("the cell is live again", 30.0):
            await scene.fleet.ready(cell)
            await scene.fleet.live("cell-1")
        new = [(await scene.steady(f"above-{number}"))[0] for number in range(4)]
        if {row["instance_guid"] for row in await scene.rows("fits")} == before:
            assert {row["cell_id"] for row in new} == {"cell-2"}, "cell-1 has not even room for what it has"
        else:  # its presence ran out on the way: one of them had room there
            assert scene.measured[-1].value > scene.timing.presence_ttl_s / 2
    finally:
        scene.fleet.set_memory("cell-1", usual)
        await cell.kill()
        await cell.start()
    await scene.fleet.ready(cell)
    await scene.fleet.live("cell-1")
    for guid in ("fits", *(f"above-{number}" for number in range(4))):
        await scene.delete(guid)

