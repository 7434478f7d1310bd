"""A cell process is killed. Its containers live on; started again it adopts them, and for good others replace them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from diego_py.embedded.cluster_layout import free_port
from tests.chain.awaited import process_of, processes_of, until, until_true
from tests.chain.definitions import HTTP, SERVE, lrp
from tests.cluster.conftest import LOSES_CELLS, NewSite
from tests.cluster.site import Site, Visitor

pytestmark = pytest.mark.cluster

WEB = lrp(script=SERVE, ports=[8080], check_definition=HTTP, disk_mb=32)
GAP_S = 1.0
SLOWER = 3
"""So many times as long as a server that nothing happens to leaves somebody waiting at worst, meanwhile, on this very
machine, one may leave him waiting whose cell is away."""
MOVED_WITHIN_S = 120.0


def addresses(row: dict[str, Any]) -> list[str]:
    net = row["net_info"]
    (port,) = net["ports"]
    return [f"http://{net['instance_address']}:8080/", f"http://{net['address']}:{port['host_port']}/"]


def running(rows: list[dict[str, Any]], count: int) -> bool:
    return len(rows) == count and all(row["state"] == "RUNNING" for row in rows)


@asynccontextmanager
async def visited(site: Site, urls: list[str]) -> AsyncIterator[list[Visitor]]:
    """All of these answer all the time, as well as a server beside them that nothing happens to."""
    assert site.cluster.image_root is not None
    port = free_port()
    served = str(site.cluster.image_root / "busybox/srv/www")
    beside = await asyncio.create_subprocess_exec("busybox", "httpd", "-f", "-p", f"127.0.0.1:{port}", "-h", served)
    quiet = Visitor(site.session, f"http://127.0.0.1:{port}/index.html")
    visitors = [Visitor(site.session, url) for url in urls]
    try:
        await until("there is a server to compare with", quiet.is_answered)
        async with asyncio.TaskGroup() as group:
            for visitor in (quiet, *visitors):
                group.create_task(visitor.visit())
            yield visitors
            for visitor in (quiet, *visitors):
                visitor.stop()
    finally:
        beside.terminate()
        await beside.wait()
    assert max(visitor.gap_s for visitor in visitors) < GAP_S + SLOWER * quiet.gap_s


async def test_containers_are_served_while_their_cell_is_replaced(new_site: NewSite) -> None:
    site = await new_site()
    before = await site.desired({**WEB, "instances": 2})
    urls = [url for row in before for url in addresses(row)]
    async with visited(site, urls) as visitors:
        await site.cluster.kill_cell("cell-1")
        await site.cluster.start_cell("cell-1")
        rows = await site.rows_when("both run", lambda rows: running(rows, 2))
        more = await site.request("PATCH", "/v1/desired_lrps/web", {"instances": 4})
    assert more.status == 200, more.body
    same = ("instance_guid", "cell_id", "net_info", "modification_tag")
    for now, then in zip(rows, before, strict=True):
        assert {name: now[name] for name in same} == {name: then[name] for name in same}
    assert min(visitor.answers for visitor in visitors) > 10
    mine = {row["instance_guid"] for row in before if row["cell_id"] == "cell-1"}
    assert mine <= await site.containers("cell-1"), "adopted under their old names"
    stopped = await site.delete("web")
    assert (stopped.status, stopped.json["stopped"]) == (200, 4), stopped.body
    assert site.cluster.leftovers() == []
    assert site.defects() == []


async def test_a_second_process_waits_for_the_first(new_site: NewSite) -> None:
    """Started while the first one serves it touches nothing; when that one dies it has its containers and port."""
    site = await new_site(cells=1)
    before = await site.desired({**WEB, "instances": 2})
    (layout,), (_, first) = site.cluster.layouts, site.cluster.children
    argv = [sys.executable, "-m", "cells", "--config", str(layout.config_path)]
    second = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE)
    try:
        assert second.stderr is not None
        await until("the second waits", partial(_has_open, second.pid, layout.state_dir / "rep" / "lock"))
        assert (await site.request("GET", "/v1/containers", url=first.url)).status == 200
        await site.cluster.kill_cell("cell-1")
        while (line := await second.stderr.readline()) and b'"ready"' not in line:
            assert b"defect" not in line, line
        assert await site.containers("cell-1") == {row["instance_guid"] for row in before}
        second.terminate()
        assert await second.wait() == 0
    finally:
        if second.returncode is None:
            second.kill()
            await second.wait()
    await site.cluster.start_cell("cell-1")
    assert {row["instance_guid"] for row in await site.rows()} == {row["instance_guid"] for row in before}


async def _has_open(pid: int, path: Path) -> bool:
    return str(path) in {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()}


async def test_what_ended_while_the_cell_was_away_is_told(new_site: NewSite) -> None:
    """The exit that nobody watched is in a document, and the instance runs again."""
    site = await new_site()
    definition = lrp(script="echo here; exec sleep 734531", memory_mb=16, disk_mb=32)
    (before,) = await site.desired(definition)
    cell_id = before["cell_id"]
    pid = await process_of("sleep", "734531")
    await site.cluster.kill_cell(cell_id)
    os.kill(pid, signal.SIGKILL)
    await until_true("the process is gone", lambda: not processes_of("sleep", "734531"))
    await site.cluster.start_cell(cell_id)
    (row,) = await site.rows_when(
        "it runs again", lambda rows: running(rows, 1) and rows[0]["instance_guid"] != before["instance_guid"]
    )
    assert row["crash_count"] == 1
    (failure,) = await site.failures("web")
    assert (failure["code"], failure["phase"]) == ("app.exited", "run")
    evidence = failure["document"]["evidence"]
    assert (evidence["exit_status"], evidence["signal"]) == (137, 9)
    assert evidence["app_log_tail"] == ["here"]
    assert evidence["disk"]["limit_bytes"] == 32 << 20, "the cell's own store was there again"
    assert failure["instance_guid"] == before["instance_guid"]


@pytest.mark.parametrize("host_dies", [False, True])
async def test_killed_for_good(new_site: NewSite, host_dies: bool) -> None:
    """Its instances run on the other cell. Should it come back, it stops what is not its own any more."""
    site = await new_site(bbs=LOSES_CELLS)
    before = await site.desired({**WEB, "instances": 4})
    victim = before[0]["cell_id"]  # Which cells are live at that moment is up to the machine.
    lost = [row for row in before if row["cell_id"] == victim]
    await site.cluster.kill_cell(victim)
    if host_dies:
        assert site.cluster.remove_cell(victim) == []
    rows = await site.rows_when(
        "all run on the other cell",
        lambda rows: running(rows, 4) and victim not in {row["cell_id"] for row in rows},
        MOVED_WITHIN_S,
    )
    kept = {row["instance_guid"] for row in before} - {row["instance_guid"] for row in lost}
    assert kept < {row["instance_guid"] for row in rows}, "what ran elsewhere was left alone"
    assert all(row.get("crash_count", 0) == 0 for row in rows), "no fault of the app"
    documents = await site.failures("web")
    assert sorted(failure["code"] for failure in documents) == ["bbs.cell_lost"] * len(lost)
    assert {failure["instance_guid"] for failure in documents} == {row["instance_guid"] for row in lost}
    await site.cluster.start_cell(victim)
    await _stopped_all(site, victim)
    assert {row["instance_guid"] for row in await site.rows()} == {row["instance_guid"] for row in rows}


async def _stopped_all(site: Site, cell_id: str) -> None:
    """The cell has nothing any more, and nothing of it is on the host."""
    async def look() -> bool:
        return not await site.containers(cell_id)

    await until(f"{cell_id} has stopped what is not its own", look)


async def test_killed_for_good_with_the_defaults(new_site: NewSite) -> None:
    """The times that an installation has when nobody sets any."""
    site = await new_site(bbs={}, cell={"report_interval_s": 5.0})
    before = await site.desired({**WEB, "instances": 2})
    victim = before[0]["cell_id"]
    await site.cluster.kill_cell(victim)
    rows = await site.rows_when(
        "both run on the other cell",
        lambda rows: running(rows, 2) and victim not in {row["cell_id"] for row in rows},
        MOVED_WITHIN_S,
    )
    assert {row["instance_guid"] for row in rows} != {row["instance_guid"] for row in before}
    await site.cluster.start_cell(victim)
    await _stopped_all(site, victim)


async def test_a_process_that_ends_is_started_again(site: Site) -> None:
    """CRASHED, with a document, then RUNNING under a new name; the third crash waits."""
    (before,) = await site.desired(lrp(script="echo up; exec sleep 734532"))
    os.kill(await process_of("sleep", "734532"), signal.SIGKILL)
    (row,) = await site.rows_when(
        "it runs again", lambda rows: running(rows, 1) and rows[0]["instance_guid"] != before["instance_guid"]
    )
    assert row["crash_count"] == 1
    (failure,) = await site.failures("web")
    document = (await site.request("GET", failure["document"]["instance"])).json
    assert document["code"] == "app.exited"
    assert document["detail"] == "killed by signal 9"
    assert document["evidence"]["app_log_tail"] == ["up"]
    assert document["subject"]["instance_guid"] == before["instance_guid"]
    assert [frame["hop"] for frame in document["chain"]] == ["rep", "executor"]
    for crashes in (2, 3):
        os.kill(await process_of("sleep", "734532"), signal.SIGKILL)
        await site.rows_when(f"crash {crashes} is known", lambda rows, n=crashes: rows[0]["crash_count"] == n)
    (row,) = await site.rows()
    assert row["state"] == "CRASHED"
    assert row["crash_reason"] == "killed by signal 9"
    assert row["next_attempt_at"] is not None
    assert len(await site.failures("web")) == 3


async def test_back_before_anything_replaced_it(new_site: NewSite) -> None:
    """The only cell is away for longer than its presence lasts: it serves as SUSPECT, then is the instance again."""
    site = await new_site(cells=1, bbs=LOSES_CELLS)
    (before,) = await site.desired(WEB)
    async with visited(site, addresses(before)):
        await site.cluster.kill_cell("cell-1")
        rows = await site.rows_when("it is suspect", lambda rows: len(rows) == 2)
        await site.cluster.start_cell("cell-1")
        (row,) = await site.rows_when("it is recalled", lambda rows: running(rows, 1))
    waiting, suspect = rows
    assert (waiting["presence"], waiting["state"]) == ("ORDINARY", "UNCLAIMED")
    assert (suspect["presence"], suspect["state"], suspect["routable"]) == ("SUSPECT", "RUNNING", True)
    assert (row["presence"], row["instance_guid"]) == ("ORDINARY", before["instance_guid"])
    assert (row.get("crash_count", 0), row["since"]) == (0, before["since"])
    (document,) = [one for one in await site.failures("web") if one["code"] == "bbs.cell_lost"]
    assert document["instance_guid"] == before["instance_guid"]
