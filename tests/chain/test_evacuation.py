"""A cell is emptied: each instance runs elsewhere before it stops here, and what finds no place stays and says why."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from tests.chain.answers import well_formed
from tests.chain.awaited import VISIT_S
from tests.chain.definitions import HTTP, SERVE, lrp
from tests.chain.expected import is_stored
from tests.chain.installation import Installation

pytestmark = [pytest.mark.chain, pytest.mark.kernel]

EMPTY = "/v1/cells/cell-1/evacuate"
SERVED = lrp(script=SERVE, ports=[8080], check_definition=HTTP, instances=3)


async def rows(installation: Installation) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await installation.request("GET", "/v1/actual_lrps")).json["items"]
    return items


async def cells_of(installation: Installation) -> list[str]:
    """Where each instance is, and that there is only one of each, and that it serves."""
    found = await rows(installation)
    assert {(row["state"], row["presence"], row["routable"]) for row in found} <= {("RUNNING", "ORDINARY", True)}
    return [row["cell_id"] for row in found]


async def verdicts(installation: Installation) -> dict[str, str]:
    answer = await installation.request("POST", "/v1/auctions/dry_run", lrp("other"))
    bids = answer.json["assignments"][0]["placement"]["bids"]
    return {bid["cell"]: bid["verdict"] for bid in bids}


async def test_emptied_and_nobody_notices(two_cells: Installation) -> None:
    """Whoever follows the rows finds at every moment all indices served; the cell stays closed over a restart."""
    assert (await two_cells.desire(SERVED)).status == 201
    here = (await cells_of(two_cells)).count("cell-1")
    assert here > 0
    missed: list[str] = []
    stop = asyncio.Event()

    async def is_served(row: dict[str, Any]) -> bool:
        url = f"http://{row['net_info']['instance_address']}:8080"
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(VISIT_S):
                return (await two_cells.request("GET", "/", url=url)).status == 200
        return False

    async def visit() -> None:
        while not stop.is_set():
            found = [row for row in await rows(two_cells) if row["state"] == "RUNNING" and row["routable"]]
            # At once: what is read of one is true for a moment.
            answers = await asyncio.gather(*map(is_served, found))
            served = {row["index"] for row, good in zip(found, answers, strict=True) if good}
            if served != {0, 1, 2}:
                missed.append(f"only {sorted(served)} answered")

    async with asyncio.TaskGroup() as group:
        group.create_task(visit())
        answer = await two_cells.request("POST", EMPTY, {})
        stop.set()
    assert answer.status == 200, answer.body
    assert answer.json == {"cell_id": "cell-1", "moved": here}
    assert missed == []
    assert await cells_of(two_cells) == ["cell-2"] * 3
    assert not two_cells.nodes["cell-1"].garden.containers()
    assert await two_cells.failures() == []
    again = await two_cells.request("POST", EMPTY, {})
    assert (again.status, again.json["moved"]) == (200, 0)
    await two_cells.nodes["cell-1"].stop()
    await two_cells.start_cell(1)
    assert (await verdicts(two_cells))["cell-1"] == "draining"
    assert (await two_cells.request("POST", "/v1/cells/cell-1/readmit", {})).status == 200
    assert (await verdicts(two_cells))["cell-1"] == "won"
    absent = await two_cells.request("POST", "/v1/cells/nowhere/evacuate", {})
    assert (absent.status, well_formed(absent)["code"]) == (404, "cell_not_found")


async def test_what_finds_no_place_stays(installation: Installation) -> None:
    """It serves on, the answer names each one and why, and once there is room the same request moves it."""
    await installation.start_cell(1)
    assert (await installation.desire({**SERVED, "instances": 2, "memory_mb": 100})).status == 201
    before = await rows(installation)
    small = await installation.start_cell(2, memory_mb=150)
    answer = await installation.request("POST", f"{EMPTY}?timeout_s=3", {})
    document = well_formed(answer)
    assert (answer.status, document["code"], document["outcome"]) == (503, "auction.no_cell_fits", "partial")
    assert answer.codes[0] == "bbs.evacuation_failed"
    about = document["subject"]
    assert (about["cell_id"], about["moved"], about["left"]) == ("cell-1", 1, 1)
    await is_stored(installation, answer)
    after = await rows(installation)
    stayed = [row for row in after if row["cell_id"] == "cell-1"]
    assert [row["instance_guid"] for row in stayed] == [before[stayed[0]["index"]]["instance_guid"]]
    assert sorted(await cells_of(installation)) == ["cell-1", "cell-2"]
    assert (await installation.row("web", stayed[0]["index"]))["failure"]["instance"] == document["instance"]
    assert len(small.garden.containers()) == 1
    await installation.start_cell(3)
    done = await installation.request("POST", EMPTY, {})
    assert (done.status, done.json["moved"]) == (200, 1), done.body
    assert sorted(await cells_of(installation)) == ["cell-2", "cell-3"]


async def test_recreated_elsewhere_one_at_a_time(two_cells: Installation) -> None:
    """`update_strategy` RECREATE: never two of one index, never two of them down."""
    assert (await two_cells.desire({**SERVED, "ports": [], "update_strategy": "RECREATE"})).status == 201
    most, least = 0, 99
    stop = asyncio.Event()

    async def watch() -> None:
        nonlocal most, least
        while not stop.is_set():
            found = await rows(two_cells)
            most = max(most, sum(len(node.garden.containers()) for node in two_cells.nodes.values()))
            least = min(least, sum(row["state"] == "RUNNING" for row in found))
            assert {row["presence"] for row in found} == {"ORDINARY"}

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        answer = await two_cells.request("POST", EMPTY, {})
        stop.set()
    assert answer.status == 200, answer.body
    assert await cells_of(two_cells) == ["cell-2"] * 3
    assert (most, least) == (3, 2)


async def test_emptied_before_it_ends(installation: Installation) -> None:
    """SIGTERM with `evacuate_on_stop_s`; the next start takes work as ever."""
    node = await installation.start_cell(1, evacuate_on_stop_s=30)
    assert (await installation.desire({**SERVED, "instances": 1})).status == 201
    await installation.start_cell(2)
    await node.stop()
    assert await cells_of(installation) == ["cell-2"]
    assert not node.garden.containers()
    await installation.start_cell(1)
    assert "draining" not in (await verdicts(installation)).values()
