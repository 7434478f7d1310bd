"""Faults of what a cell keeps on its disk."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Set

from tests.chain.awaited import until
from tests.chaos import leftovers
from tests.chaos.faults.scene import MARGIN_S, Scene, fault

INSTANCES = 4
AGAIN_S = 15.0
"""What starting again may take once the presence of the cell as it was has run out."""


@fault("a cell's process dies and its state directory is wiped while its containers run; it starts again")
async def cell_state_wiped(scene: Scene) -> None:
    await scene.steady("wiped", instances=INSTANCES)
    cell, layout = scene.fleet.cells["cell-1"], scene.fleet.layouts["cell-1"]
    await cell.kill()
    scene.fleet.wipe_state("cell-1")
    before = await asyncio.to_thread(leftovers.of_cell, layout, cell.host)
    handles = scene.fleet.containers_on_host()["cell-1"] & {row["instance_guid"] for row in await scene.rows("wiped")}
    assert handles, "no container of the cell whose state was wiped runs"
    assert {thing.split()[0] for thing in before} == {"process", "mount", "link", "cgroup"}, sorted(before)
    await cell.start()
    # Its identity went with its state: it is another cell of this name until the presence of the first one has run out.
    bound_s = scene.timing.presence_ttl_s + AGAIN_S
    async with scene.within("a wiped cell is live again", bound_s):
        await scene.fleet.ready(cell)
        await scene.fleet.live("cell-1")
    async with scene.within("what ran on a wiped cell runs again", bound_s):
        await scene.running("wiped", INSTANCES, 60)
    async with scene.within("what nobody knows is gone from a wiped cell", MARGIN_S):
        await _nothing_of_nobody(scene, before)
    rows = await scene.steady("anew", instances=INSTANCES)
    assert any(row["cell_id"] == "cell-1" for row in rows), "the wiped cell gets no instances"
    await _addresses_differ(scene)
    await scene.delete("anew")
    await scene.delete("wiped")


async def _nothing_of_nobody(scene: Scene, before: Set[str]) -> None:
    """Return when of what was there before only that is left whose container goes on. Fails with the rest."""
    left: set[str] = set()
    cell, layout = scene.fleet.cells["cell-1"], scene.fleet.layouts["cell-1"]

    async def swept() -> bool:
        nonlocal left
        async with scene.fleet.database() as connection:
            rows = await connection.fetch("SELECT instance_guid FROM actual_lrps WHERE cell_id = 'cell-1'")
        known = scene.fleet.containers_on_host()["cell-1"] & {row["instance_guid"] for row in rows}
        still = before & await asyncio.to_thread(leftovers.of_cell, layout, cell.host)
        left = {thing for thing in still if not any(handle in thing for handle in known)}
        return not left

    try:
        await until("nothing is left of containers that nobody knows", swept, 60)
    except AssertionError as failed:
        raise AssertionError(f"{failed}: {sorted(left)}") from None


async def _addresses_differ(scene: Scene) -> None:
    """Fails when two instances on one cell have one address or port of it."""
    async with scene.fleet.database() as connection:
        rows = await connection.fetch("SELECT cell_id, net_info FROM actual_lrps WHERE state = 'RUNNING'")
    taken: list[tuple[str, str]] = []
    for row in rows:
        info = json.loads(row["net_info"])
        taken.append((row["cell_id"], info["instance_address"]))
        taken += [(row["cell_id"], str(port["host_port"])) for port in info["ports"] if port["host_port"]]
    twice = {place for place in taken if taken.count(place) > 1}
    assert not twice, f"more than one instance has {sorted(twice)}"
