"""A BBS process is killed while it works: what it acknowledged is there, what it did not can be asked for again."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.chain.answers import Answer
from tests.chain.awaited import until
from tests.chain.definitions import HTTP, SERVE, lrp
from tests.cluster.conftest import NewSite
from tests.cluster.site import Site

pytestmark = pytest.mark.cluster

CREATES = 16
BUDGET_MS = 5_000
"""A key counts as in flight for so long and ten seconds more: then whoever asks again takes over."""
TAKEN_OVER_WITHIN_S = 90.0


def definition(number: int) -> dict[str, object]:
    return lrp(f"web-{number}", memory_mb=16, script=SERVE, ports=[8080], check_definition=HTTP)


async def create(site: Site, number: int) -> Answer | None:
    """The answer, or None when the connection broke before there was one."""
    try:
        return await site.desire(
            definition(number), Idempotency_Key=f"key-{number}", X_Budget_Ms=str(BUDGET_MS)
        )
    except aiohttp.ClientError:
        return None


async def created_in_the_end(site: Site, number: int) -> Answer:
    """Ask again with the same key until the answer is one that stays."""

    async def look() -> Answer | None:
        answer = await create(site, number)
        assert answer is not None, "the connection broke again"
        return None if answer.status == 409 and answer.json["code"] == "idempotency_in_flight" else answer

    return await until(f"an answer for web-{number}", look, TAKEN_OVER_WITHIN_S)


async def killed_during_creates(site: Site) -> dict[int, Answer | None]:
    """Start all creates, kill the BBS when some of them are answered, start it again."""
    some = asyncio.Event()
    answers: dict[int, Answer | None] = {}

    async def one(number: int) -> None:
        answers[number] = await create(site, number)
        if len(answers) >= CREATES // 4:
            some.set()

    async with asyncio.TaskGroup() as group:
        for number in range(CREATES):
            group.create_task(one(number))
        await some.wait()
        await site.cluster.kill_bbs()
    await site.cluster.start_bbs()
    return answers


async def test_killed_during_creates(new_site: NewSite) -> None:
    site = await new_site()
    answers = await killed_during_creates(site)
    acknowledged = [number for number, answer in answers.items() if answer is not None]
    unanswered = [number for number, answer in answers.items() if answer is None]
    assert acknowledged
    assert unanswered
    for number in acknowledged:
        answer = answers[number]
        assert answer is not None
        assert answer.status == 201, answer.body
        (now,) = await site.rows(f"web-{number}")
        (then,) = answer.json["actual_lrps"]
        assert (now["state"], now["instance_guid"]) == ("RUNNING", then["instance_guid"])
        again = await create(site, number)
        assert again is not None
        assert again.body == answer.body
    async with asyncio.TaskGroup() as group:
        repeats = [group.create_task(created_in_the_end(site, number)) for number in unanswered]
    for task in repeats:
        answer = task.result()
        assert answer.status == 201, answer.body
        assert answer.json["actual_lrps"][0]["state"] == "RUNNING"
    await _one_container_each(site)
    assert site.defects() == []


async def _one_container_each(site: Site) -> None:
    """As many containers as instances: what was started twice by the way is stopped."""
    wanted = {f"web-{number}" for number in range(CREATES)}

    async def look() -> bool:
        rows = await site.rows()
        there = await site.containers("cell-1") | await site.containers("cell-2")
        running = {row["instance_guid"] for row in rows if row["state"] == "RUNNING"}
        return {row["process_guid"] for row in rows} == wanted and running == there and len(running) == CREATES

    await until("each LRP has its one container", look)


async def test_nobody_asks_again(site: Site) -> None:
    """What was stored and not answered becomes true by convergence."""
    answers = await killed_during_creates(site)
    stored = (await site.request("GET", "/v1/desired_lrps")).json["items"]
    names = {item["definition"]["process_guid"] for item in stored}
    assert names >= {f"web-{number}" for number, answer in answers.items() if answer is not None}
    rows = await site.rows_when(
        "all that is stored runs",
        lambda rows: len(rows) == len(names) and all(row["state"] == "RUNNING" for row in rows),
        limit_s=120.0,
    )
    assert {row["process_guid"] for row in rows} == names


async def test_containers_do_not_notice(new_site: NewSite) -> None:
    """Without any BBS everything runs on; back again it knows all of it, and can stop it."""
    site = await new_site()
    before = await site.desired(lrp(instances=4, memory_mb=16))
    await site.cluster.kill_bbs()
    there = await site.containers("cell-1") | await site.containers("cell-2")
    assert there == {row["instance_guid"] for row in before}
    await site.cluster.start_bbs()
    rows = await site.rows()
    assert [row["instance_guid"] for row in rows] == [row["instance_guid"] for row in before]
    answer = await site.delete("web")
    assert answer.status == 200, answer.body
    assert site.cluster.leftovers() == []
