"""A cell that drains ends up empty, whoever asked for that died; what cannot go says why."""

from __future__ import annotations

from typing import Any

import pytest

from bbs.convergence import plan
from tests.chain.awaited import until
from tests.chain.definitions import lrp
from tests.chain.installation import Installation
from tests.chain.test_evacuation import rows

pytestmark = [pytest.mark.chain, pytest.mark.kernel]


async def decided(installation: Installation, **wanted: str) -> list[dict[str, Any]]:
    query = "&".join(f"{name}={value}" for name, value in wanted.items())
    items: list[dict[str, Any]] = (await installation.request("GET", f"/v1/decisions?{query}")).json["items"]
    return items


async def test_emptied_after_whoever_asked_for_it_died(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "STALE_UNCLAIMED_S", 0.5)
    node = await installation.start_cell(1)
    rolling = lrp(instances=2, memory_mb=400)
    assert (await installation.desire(rolling)).status == 201
    assert (await installation.desire(lrp("one", update_strategy="RECREATE"))).status == 201
    await installation.start_cell(2, memory_mb=500)
    await installation.stop_bbs()
    node.cell.work.admission.drain.set(True)
    port = installation.bbs.listener.port
    await installation.start_bbs(listen_port=port, convergence_interval_s=0.1)
    await node.report()

    async def one_is_left() -> list[dict[str, Any]]:
        here = [row for row in await rows(installation) if row["cell_id"] == "cell-1"]
        told = {item["index"]: item for item in await decided(installation, process_guid="web")}
        waits = any(item["decision"] == "held" and item["due_at"] for item in told.values())
        return here if waits and [row["process_guid"] for row in here] == ["web"] else []

    (left,) = await until("all but one that finds no room is moved, and that one says why", one_is_left, 60)
    assert (left["state"], left["presence"]) == ("RUNNING", "EVACUATING"), "it serves on"
    told = await decided(installation, cell_id="cell-1")
    (serving,) = [item for item in told if (item["index"], item["presence"]) == (left["index"], "EVACUATING")]
    assert serving["reason"] == "cell cell-1 drains; it serves until its replacement runs"
    await installation.start_cell(3)

    async def empty() -> bool:
        found = await rows(installation)
        return len(found) == 3 and all(row["cell_id"] != "cell-1" for row in found)

    await until("the cell is empty once there is room", empty, 60)
    assert not node.garden.containers()
