"""Two BBSes over one database: both place, one converges, and when that one is killed the other one does."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator

import asyncpg
import pytest
from attrs import define

from diego_py.embedded.cluster_layout import free_port
from tests.chain.awaited import process_of, until
from tests.chain.definitions import lrp
from tests.cluster.conftest import NewSite
from tests.cluster.site import Site

pytestmark = pytest.mark.cluster


@define
class Pair:
    """A cluster with a second BBS."""

    site: Site
    second_url: str
    dsn: str

    async def leader(self) -> tuple[int, str]:
        """Epoch and id of who leads now."""
        connection = await asyncpg.connect(self.dsn)
        try:
            row = await connection.fetchrow("SELECT epoch, owner FROM leader WHERE expires_at > clock_timestamp()")
        finally:
            await connection.close()
        return (row["epoch"], row["owner"].partition(":")[0]) if row else (0, "")


@pytest.fixture
async def pair(new_site: NewSite) -> AsyncIterator[Pair]:
    ports = free_port(), free_port()
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    site = await new_site(bbs_port=ports[0], cell={"bbs_urls": urls})
    settings = json.loads((site.cluster.state_dir / "bbs.json").read_text())
    path = site.cluster.state_dir / "bbs-2.json"
    path.write_text(json.dumps({**settings, "id": "bbs-2", "listen_port": ports[1]}))
    path.chmod(0o600)
    with (site.cluster.state_dir / "logs" / "bbs-2.log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bbs", "--config", str(path), stdout=log, stderr=log
        )
    try:
        await until("the second BBS is ready", lambda: _is_ready(site, urls[1]))
        yield Pair(site, urls[1], settings["dsn"])
    finally:
        process.terminate()
        async with asyncio.timeout(30):
            assert await process.wait() == 0


async def _is_ready(site: Site, url: str) -> bool:
    try:
        return (await site.request("GET", "/readyz", url=url)).status == 200
    except OSError:
        return False


async def test_both_place(pair: Pair) -> None:
    """Half of the requests each, at once; either shows all of it, and no cell is given more than it has."""
    site = pair.site
    names = [f"app-{number}" for number in range(12)]
    urls = (site.cluster.url, pair.second_url)
    async with asyncio.TaskGroup() as group:
        for number, name in enumerate(names):
            group.create_task(site.desired(lrp(name, memory_mb=150), urls[number % 2]))
    for url in urls:
        items = (await site.request("GET", "/v1/actual_lrps", url=url)).json["items"]
        assert {item["process_guid"] for item in items} == set(names)
        assert {item["state"] for item in items} == {"RUNNING"}
    for cell_id in ("cell-1", "cell-2"):
        assert len(await site.containers(cell_id)) == 6, "1024 MB each"
    full = await site.desire(lrp("one-more", memory_mb=150), pair.second_url)
    assert (full.status, full.json["fault"]) == (503, "capacity")
    async with asyncio.TaskGroup() as group:
        for number, name in enumerate(names):
            url = urls[(number + 1) % 2]
            group.create_task(site.request("DELETE", f"/v1/desired_lrps/{name}", url=url))
    assert site.cluster.leftovers() == []


async def test_a_name_is_given_once(pair: Pair) -> None:
    """The same LRP at both BBSes at once: one has it, the other one is told so."""
    urls = (pair.site.cluster.url, pair.second_url)
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(pair.site.desire(lrp(), url)) for url in urls]
    assert sorted(task.result().status for task in asked) == [201, 409]
    assert len(await pair.site.rows("web")) == 1


async def test_one_converges_and_the_other_one_takes_over(pair: Pair) -> None:
    site = pair.site
    epoch, leader = await pair.leader()
    assert leader == "bbs-1", "it was there first"
    (before,) = await site.desired(lrp(script="exec sleep 734541"))
    os.kill(await process_of("sleep", "734541"), signal.SIGKILL)
    await _repaired(site, before["instance_guid"], site.cluster.url)
    assert "instance_retried" in _log(site, "bbs")
    assert "instance_retried" not in _log(site, "bbs-2"), "only one converges"
    await site.cluster.kill_bbs()
    (row,) = (await site.request("GET", "/v1/actual_lrps", url=pair.second_url)).json["items"]
    os.kill(await process_of("sleep", "734541"), signal.SIGKILL)
    await _repaired(site, row["instance_guid"], pair.second_url)
    assert "instance_retried" in _log(site, "bbs-2")
    assert await pair.leader() == (epoch + 1, "bbs-2")
    await site.cluster.start_bbs()
    assert (await pair.leader())[1] == "bbs-2", "who leads goes on leading"


async def _repaired(site: Site, instance_guid: str, url: str) -> None:
    async def look() -> bool:
        (row,) = (await site.request("GET", "/v1/actual_lrps", url=url)).json["items"]
        return row["state"] == "RUNNING" and row["instance_guid"] != instance_guid

    await until("another instance runs", look, 90.0)


def _log(site: Site, name: str) -> str:
    return (site.cluster.state_dir / "logs" / f"{name}.log").read_text()
