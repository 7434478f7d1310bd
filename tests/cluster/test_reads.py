"""Reading while everything changes: no read fails, and what was answered is what the next read shows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.chain.definitions import lrp
from tests.cluster.site import Site

pytestmark = pytest.mark.cluster

READERS = 4
STATES = {"UNCLAIMED", "CLAIMED", "RUNNING"}


async def hammer(site: Site, done: asyncio.Event, seen: list[list[dict[str, Any]]]) -> None:
    """Read all instances one time after the other."""
    while not done.is_set():
        answer = await site.request("GET", "/v1/actual_lrps")
        assert answer.status == 200, answer.body
        seen.append(answer.json["items"])


async def is_shown(site: Site, answered: list[dict[str, Any]], count: int) -> None:
    """Every instance of an answer is in the very next read as it was answered, and no other one is there."""
    rows = {row["index"]: row for row in await site.rows("web")}
    assert len(rows) == count
    for row in answered:
        shown = rows[row["index"]]
        assert (shown["state"], shown["instance_guid"]) == ("RUNNING", row["instance_guid"])
        assert shown["modification_tag"] == row["modification_tag"]


async def scale(site: Site, count: int) -> list[dict[str, Any]]:
    answer = await site.request("PATCH", "/v1/desired_lrps/web", {"instances": count})
    assert answer.status == 200, answer.body
    rows: list[dict[str, Any]] = answer.json["actual_lrps"]
    return rows


async def test_read_while_created_and_scaled(site: Site) -> None:
    done = asyncio.Event()
    seen: list[list[list[dict[str, Any]]]] = [[] for _ in range(READERS)]
    async with asyncio.TaskGroup() as group:
        for reads in seen:
            group.create_task(hammer(site, done, reads))
        await is_shown(site, await site.desired(lrp(instances=2, memory_mb=16)), 2)
        for count in (5, 1, 4, 0, 3):
            await is_shown(site, await scale(site, count), count)
        deleted = await site.delete("web")
        assert deleted.status == 200, deleted.body
        assert await site.rows() == []
        done.set()
    for reads in seen:
        assert len(reads) > 10, "nobody read"
        _moves_forward(reads)


def _moves_forward(reads: list[list[dict[str, Any]]]) -> None:
    """No reader ever sees a row go back to an earlier revision of itself."""
    revisions: dict[tuple[int, str], int] = {}
    for rows in reads:
        assert len({row["index"] for row in rows}) == len(rows)
        for row in rows:
            assert row["state"] in STATES, row
            tag = row["modification_tag"]
            key = (row["index"], tag["epoch"])
            assert tag["index"] >= revisions.get(key, 0), "an older state after a newer one"
            revisions[key] = tag["index"]


async def test_changes_of_many_at_once(site: Site) -> None:
    """Each caller reads its own write; no caller's change is lost in another's."""
    names = [f"app-{number}" for number in range(8)]

    async def life(name: str) -> None:
        await site.desired(lrp(name, memory_mb=16))
        assert [row["state"] for row in await site.rows(name)] == ["RUNNING"]
        answer = await site.request("PATCH", f"/v1/desired_lrps/{name}", {"instances": 2, "annotation": name})
        assert answer.status == 200, answer.body
        assert len(await site.rows(name)) == 2
        stored = await site.request("GET", f"/v1/desired_lrps/{name}")
        assert stored.json["definition"]["annotation"] == name
        deleted = await site.delete(name)
        assert (deleted.status, deleted.json["stopped"]) == (200, 2)
        assert await site.rows(name) == []

    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(life(name))
    assert site.cluster.leftovers() == []
    assert site.defects() == []
