"""Faults of cells and of the way to them."""

from __future__ import annotations

import asyncio
import time

from tests.chain.answers import well_formed
from tests.chain.awaited import until
from tests.chaos.faults.scene import BUDGET_MS, MARGIN_S, Scene, cut, fault

LOST = 4
"""Instances, half of them on the cell that is lost."""
REPLACED_S = 15.0
"""What a replacement may take once the presence has run out: 30 s in all with the default timing."""


@fault("SIGKILL of a cell's process; it comes back and takes up what runs", always=True)
async def cell_process_killed(scene: Scene) -> None:
    before = {row["instance_guid"] for row in await scene.steady("kept", instances=2)}
    cell = scene.fleet.cells["cell-1"]
    await cell.kill()
    await cell.start()
    async with scene.within("the cell is live again", 30.0):
        await scene.fleet.ready(cell)
        await scene.fleet.live("cell-1")
    if scene.measured[-1].value < scene.timing.presence_ttl_s / 2:
        # Later than that, its instances may have been placed elsewhere, as they should.
        await _are_still(scene, "kept", before)
    await scene.running("kept", 2, 60)
    await scene.delete("kept")


@fault("a cell's machine dies and stays away", always=True)
async def cell_lost(scene: Scene) -> None:
    rows = await scene.steady("lost", instances=LOST)
    cell = scene.fleet.cells["cell-1"]
    began_s = time.monotonic()
    await cell.kill()
    await scene.fleet.lose_cell("cell-1")
    await scene.replaced(rows, "cell-1", scene.timing.presence_ttl_s + REPLACED_S, began_s)
    await scene.running("lost", LOST, 60, but_not=frozenset({"cell-1"}))
    await cell.start()
    await scene.fleet.live("cell-1")
    await scene.delete("lost")


@fault("a cell is frozen until it has been replaced, then thawed: what it has too much goes", always=True)
async def cell_frozen(scene: Scene) -> None:
    await scene.steady("frozen", instances=2)
    cell = scene.fleet.cells["cell-1"]
    cell.freeze()
    try:
        await scene.running("frozen", 2, 60, but_not=frozenset({"cell-1"}))
    finally:
        cell.thaw()
    names = {str(row["instance_guid"]) for row in await scene.rows("frozen")}

    async def gone() -> bool:
        rest = scene.fleet.containers_on_host()["cell-1"]
        async with scene.fleet.database() as connection:
            rows = await connection.fetch("SELECT instance_guid FROM actual_lrps WHERE cell_id = 'cell-1'")
        return rest <= {row["instance_guid"] for row in rows} | names

    async with scene.within("what it has too much is gone", scene.timing.report_interval_s * 2 + MARGIN_S):
        await until("nothing too much is there", gone, 60)
    await scene.delete("frozen")


@fault("a cell is cut off from every BBS, then comes back")
async def cell_cut_off(scene: Scene) -> None:
    rows = await scene.steady("cut", instances=LOST)
    with cut(scene, "cell-1", *scene.fleet.bbses):
        await scene.replaced(rows, "cell-1", scene.timing.presence_ttl_s + REPLACED_S, time.monotonic())
        await scene.running("cut", LOST, 60, but_not=frozenset({"cell-1"}))
    await scene.fleet.live("cell-1")
    await scene.delete("cut")


@fault("a cell hears the BBSes and cannot answer them")
async def cell_mute(scene: Scene) -> None:
    rows = await scene.steady("mute", instances=LOST)
    for name in scene.fleet.bbses:
        scene.fleet.network.cut_one_way("cell-1", name)
    try:
        await scene.replaced(rows, "cell-1", scene.timing.presence_ttl_s + REPLACED_S, time.monotonic())
        await scene.running("mute", LOST, 60, but_not=frozenset({"cell-1"}))
    finally:
        scene.fleet.network.heal()
    await scene.fleet.live("cell-1")
    await scene.delete("mute")


@fault("more than half of the cells vanish at once: nothing is replaced")
async def all_cells_cut_off(scene: Scene) -> None:
    before = {row["instance_guid"] for row in await scene.steady("valve", instances=2)}
    for cell_id in scene.fleet.cells:
        for name in scene.fleet.bbses:
            scene.fleet.network.cut(cell_id, name)
    try:
        await asyncio.sleep(scene.timing.presence_ttl_s * 2)
        answer = await scene.create("nowhere")
        assert answer.status == 503, answer.body
        well_formed(answer)
        await _serve_on(scene, "valve", before)
    finally:
        scene.fleet.network.heal()
    async with scene.within("every cell is live again", scene.timing.report_interval_s * 2 + MARGIN_S):
        for cell_id in scene.fleet.cells:
            await scene.fleet.live(cell_id)
    await _are_still(scene, "valve", before)
    await scene.delete("valve")
    await scene.delete("nowhere")


@fault("a cell does what it is asked, and its answers are lost", always=True)
async def replies_lost(scene: Scene) -> None:
    for cell_id in scene.fleet.cells:
        for name in scene.fleet.bbses:
            scene.fleet.network.lose_replies(cell_id, name)
    try:
        async with scene.within("a request is answered", BUDGET_MS / 1000 + 1.0):
            answer = await scene.create("reply", budget_ms=BUDGET_MS)
        assert answer.status >= 500, answer.body
        well_formed(answer)
    finally:
        scene.fleet.network.heal()
    async with scene.within("it runs once", scene.timing.presence_ttl_s * 2 + MARGIN_S):
        await scene.running("reply", 1, 90)
    await scene.delete("reply")


@fault("requests to the cells are held up by the network and arrive when nobody waits any more", always=True)
async def requests_late(scene: Scene) -> None:
    for name in scene.fleet.bbses:
        for cell_id in scene.fleet.cells:
            scene.fleet.network.lose_requests(name, cell_id)
    try:
        answer = await scene.create("late", budget_ms=BUDGET_MS)
        assert answer.status >= 500, answer.body
        well_formed(answer)
    finally:
        scene.fleet.network.heal()
    async with scene.within("it runs once", scene.timing.presence_ttl_s * 2 + MARGIN_S):
        await scene.running("late", 1, 90)
    await scene.delete("late")


@fault("a cell answers nothing (SIGSTOP) while others have room: placement goes on")
async def slow_cell(scene: Scene) -> None:
    cell = scene.fleet.cells["cell-1"]
    cell.freeze()
    try:
        async with scene.within("a request is answered", BUDGET_MS / 1000 + 1.0):
            answer = await scene.create("beside", budget_ms=BUDGET_MS)
    finally:
        cell.thaw()
    assert answer.status == 201 or well_formed(answer)["retryable"], answer.body
    await scene.running("beside", 1, 90)
    await scene.delete("beside")


async def _serve_on(scene: Scene, guid: str, before: set[str]) -> None:
    """Fails when an instance was given up, or another one was started for it. One whose cell's presence ran out before
    the others counted as late may be suspect, and is recalled when its cell is back."""
    rows = await scene.rows(guid)
    told = [(row["index"], row["presence"], row["state"], row["instance_guid"], row["cell_id"]) for row in rows]
    assert {row["instance_guid"] for row in rows if row["cell_id"] is not None} == before, f"{sorted(before)} is {told}"


async def _are_still(scene: Scene, guid: str, before: set[str]) -> None:
    """Fails when an instance was replaced, or given up."""
    rows = await scene.rows(guid)
    told = [(row["index"], row["presence"], row["state"], row["instance_guid"], row["cell_id"]) for row in rows]
    assert {row["instance_guid"] for row in rows} == before, f"{guid} was {sorted(before)}, is {told}"
