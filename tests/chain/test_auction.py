"""The auction's hop: no cell, or none that fits. 503 with each cell's reason, before any was sent anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chain.definitions import lrp
from tests.chain.expected import Expected, failed
from tests.chain.installation import Installation
from tests.kernel.containers import runtime_of_version

pytestmark = [pytest.mark.chain, pytest.mark.kernel]

HOPS = ("bbs", "auction")
NO_CELL_FITS = Expected(code="auction.no_cell_fits", status=503, outcome="not_started", hops=HOPS)


async def test_there_is_no_cell(installation: Installation) -> None:
    expected = Expected(code="auction.no_cells", status=503, outcome="not_started", hops=HOPS)
    document = await failed(installation, await installation.desire(lrp()), expected)
    assert (document["fault"], document["retryable"]) == ("capacity", True)


async def test_the_only_cell_is_no_longer_there(installation: Installation) -> None:
    """A presence that ran out does not count, whatever the BBS remembers."""
    node = await installation.start_cell(1)
    await node.stop()
    gone = await installation.request("GET", "/v1/cells/cell-1")
    assert gone.json["live"] is True, "it went without a word"
    await installation.let_presence_run_out("cell-1")
    expected = Expected(code="auction.no_cells", status=503, outcome="not_started", hops=HOPS)
    # What it remembers is asked first, and found to be gone.
    await installation.desire(lrp("first"))
    await failed(installation, await installation.desire(lrp()), expected)


def no_fit(need: dict[str, int]) -> dict[str, Any]:
    return {"verdict": "no_fit", "lacks": need}


async def test_no_cell_has_room(two_cells: Installation) -> None:
    document = await failed(two_cells, await two_cells.desire(lrp(memory_mb=5_000)), NO_CELL_FITS)
    placement = document["placement"]
    assert placement["need"] == {"memory_mb": 5_000, "disk_mb": 0, "containers": 1}
    assert {bid["cell"] for bid in placement["bids"]} == {"cell-1", "cell-2"}
    for bid in placement["bids"]:
        assert bid["verdict"] == "no_fit"
        assert bid["have"]["memory_mb"] == 1024
        assert bid["lacks"] == {"memory_mb": {"need": 5_000, "have": 1024}}
    assert document["detail"] == "memory_mb 5000 needed, 1024 at most free on 2 cell(s)"
    assert (document["fault"], document["retryable"]) == ("capacity", True)


async def test_no_cell_has_the_rootfs(two_cells: Installation) -> None:
    document = await failed(two_cells, await two_cells.desire(lrp(rootfs="preloaded:nope")), NO_CELL_FITS)
    assert {bid["verdict"] for bid in document["placement"]["bids"]} == {"rootfs"}
    assert "preloaded:nope" in document["detail"]


async def test_every_cell_drains(two_cells: Installation) -> None:
    for node in two_cells.nodes.values():
        answer = await two_cells.request("POST", "/v1/drain", {"draining": True}, url=node.url)
        assert answer.status == 200
        await node.report()
    document = await failed(two_cells, await two_cells.desire(lrp()), NO_CELL_FITS)
    assert {bid["verdict"] for bid in document["placement"]["bids"]} == {"draining"}


async def test_each_cell_has_its_own_reason(installation: Installation) -> None:
    await installation.start_cell(1, memory_mb=32)
    await installation.start_cell(2, placement_tags=("gpu",))
    document = await failed(installation, await installation.desire(lrp()), NO_CELL_FITS)
    bids = {bid["cell"]: bid for bid in document["placement"]["bids"]}
    assert bids["cell-1"]["lacks"] == {"memory_mb": {"need": 64, "have": 32}}
    assert (bids["cell-2"]["verdict"], bids["cell-2"]["detail"]) == ("placement_tags", "takes only work tagged gpu")


async def test_privileged_goes_to_cells_that_make_such(installation: Installation, tmp_path: Path) -> None:
    old, safe = "runc version 1.1.5", "runc version 1.4.0"
    await installation.start_cell(1)
    (tmp_path / "old").mkdir()
    await installation.start_cell(2, allow_privileged=True, runtime_path=runtime_of_version(tmp_path / "old", old))
    document = await failed(installation, await installation.desire(lrp(privileged=True)), NO_CELL_FITS)
    bids = document["placement"]["bids"]
    assert [(bid["verdict"], bid["detail"]) for bid in bids] == [("privileged", "makes no privileged containers")] * 2
    await installation.start_cell(3, allow_privileged=True, runtime_path=runtime_of_version(tmp_path, safe))
    answer = await installation.desire(lrp("other", privileged=True))
    assert answer.status == 201, answer.body
    assert answer.json["actual_lrps"][0]["cell_id"] == "cell-3"


async def test_room_for_some_of_the_instances(installation: Installation) -> None:
    """What fits runs, the rest is told: 5xx, because not all of it is true, and partial, because some is."""
    await installation.start_cell(1, memory_mb=150)
    answer = await installation.desire(lrp(instances=3))
    assert (answer.status, answer.json["code"], answer.json["outcome"]) == (503, "auction.no_cell_fits", "partial")
    told = answer.json["instances"]
    assert sorted(line["state"] for line in told) == ["FAILED", "RUNNING", "RUNNING"]
    bad = next(line for line in told if line["state"] == "FAILED")
    assert bad["code"] == "auction.no_cell_fits"
    for line in told:
        row = await installation.row("web", line["index"])
        assert row["state"] == ("RUNNING" if line["state"] == "RUNNING" else "UNCLAIMED")
    stored = await installation.request("GET", answer.json["instance"])
    assert stored.body == answer.body
