"""Time that runs out: the caller's budget, a caller that waits less, one that does not wait, one that hangs up."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.chain.answers import well_formed
from tests.chain.awaited import until, until_true
from tests.chain.definitions import HTTP, SERVE, checked_by, lrp, task
from tests.chain.expected import Expected, failed, nothing_was_written
from tests.chain.installation import Installation
from tests.chain.proxy import Proxy, to_port

pytestmark = [pytest.mark.chain, pytest.mark.kernel]

NEVER = lrp(ports=[8080], check_definition=checked_by(tcp={"port": 8080}))
LATE_MS = 5_000
"""How much later an answer may come on a busy machine. Without a budget it would not come at all."""
SLOW = lrp(script=f"sleep 0.6; {SERVE}", ports=[8080], check_definition=HTTP, start_timeout_ms=10_000)


async def state_of(installation: Installation) -> dict[str, Any] | None:
    answer = await installation.request("GET", "/v1/actual_lrps/web/0")
    return answer.json if answer.status == 200 else None


async def running(installation: Installation) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        row = await state_of(installation)
        return row if row is not None and row["state"] == "RUNNING" else None

    return await until("the instance is RUNNING", look)


async def test_the_budget_is_spent_on_an_app_that_does_not_get_healthy(one_cell: Installation) -> None:
    """The hop that spent it says so, with what it waited for; and everything is undone before the caller gives up."""
    answer = await one_cell.desire(NEVER, X_Budget_Ms="2500")
    expected = Expected(
        code="budget_spent", status=504, hops=("bbs", "auction", "rep", "executor"), evidence=("check", "app_log_tail")
    )
    document = await failed(one_cell, answer, expected)
    assert document["elapsed_ms"] <= 2_500
    assert document["budget_ms"] == 2_500
    assert document["evidence"]["check"]["attempts"] >= 1
    leaf = document["chain"][-1]
    assert leaf["elapsed_ms"] > document["elapsed_ms"] / 2, "the time went there"


@pytest.mark.parametrize("budget_ms", ["1", "40", "-5", "0"])
async def test_a_budget_too_small_to_begin_with(one_cell: Installation, budget_ms: str) -> None:
    answer = await one_cell.desire(lrp(), X_Budget_Ms=budget_ms)
    document = well_formed(answer)
    assert (answer.status, document["code"], document["outcome"]) == (504, "budget_spent", "not_started")
    assert set(answer.hops) <= {"bbs", "postgres"}
    await nothing_was_written(one_cell)


@pytest.mark.parametrize("budget_ms", range(60, 480, 30))
async def test_any_budget_ends_in_one_of_two_ways(one_cell: Installation, budget_ms: int) -> None:
    """Whichever step the end of the time falls into: it runs, or it is told by whom the time was spent, and undone."""
    answer = await one_cell.desire(lrp(), X_Budget_Ms=str(budget_ms))
    if answer.status == 201:
        assert (await one_cell.row("web"))["state"] == "RUNNING"
        return
    document = well_formed(answer)
    assert (answer.status, document["code"]) == (504, "budget_spent"), document
    if document["outcome"] in ("not_started", "rolled_back"):
        assert one_cell.left() == []
    else:
        assert document["outcome"] in ("unknown", "running"), document
        await _settled(one_cell)


async def _settled(installation: Installation) -> None:
    """What nobody knew at the time of the answer has become one or the other by itself."""
    node = installation.nodes["cell-1"]

    async def look() -> bool:
        await node.report()
        row = await state_of(installation)
        runs = row is not None and row["state"] == "RUNNING"
        return len(node.garden.containers()) == runs and (runs or installation.left() == [])

    await until("row and cell agree", look)


async def test_a_cell_that_does_not_answer(installation: Installation) -> None:
    """The BBS names the hop that it waited for. What became of the request there is unknown."""
    async with Proxy(
        to_port(lambda: installation.nodes["cell-1"].cell.listener.port), hold_what=b"POST /v1/instances"
    ) as wire:
        await installation.start_cell(1, url=wire.url)
        answer = await installation.desire(lrp(), X_Budget_Ms="2000")
        expected = Expected(code="budget_spent", status=504, outcome="unknown", hops=("bbs", "auction", "rep"))
        document = await failed(installation, answer, expected)
        assert document["chain"][-1]["id"] == "cell-1"
        assert document["elapsed_ms"] < 2_000 + LATE_MS


async def test_the_caller_prefers_to_wait_less(one_cell: Installation) -> None:
    """The answer is that nobody knows yet and where to look; then it becomes true."""
    slow = lrp(script=f"sleep 2.5; {SERVE}", ports=[8080], check_definition=HTTP)
    answer = await one_cell.desire(slow, Prefer="wait=1")
    document = well_formed(answer)
    assert (answer.status, document["code"], document["outcome"]) == (504, "budget_spent", "unknown")
    assert "/v1/desired_lrps/web" in document["detail"]
    assert 1_000 <= document["elapsed_ms"] < 2_500
    row = await running(one_cell)
    assert row["cell_id"] == "cell-1"
    assert (await one_cell.failures()) == []


async def test_the_caller_waits_long_enough(one_cell: Installation) -> None:
    answer = await one_cell.desire(lrp(), Prefer="wait=20")
    assert answer.status == 201, answer.body
    assert answer.headers["Preference-Applied"] == "wait=20"


async def test_the_caller_does_not_wait(one_cell: Installation) -> None:
    answer = await one_cell.desire(SLOW, Prefer="respond-async")
    assert answer.status == 202, answer.body
    assert answer.headers["Preference-Applied"] == "respond-async"
    location = answer.headers["Location"]
    assert location == "/v1/desired_lrps/web"
    stored = await one_cell.request("GET", location)
    assert stored.json["definition"]["process_guid"] == "web"
    await running(one_cell)


async def test_the_caller_does_not_wait_for_a_failure(one_cell: Installation) -> None:
    """Nobody is there to be answered; the row and the stored document say it."""
    answer = await one_cell.desire(lrp(script="exit 9"), Prefer="respond-async")
    assert answer.status == 202

    async def crashed() -> dict[str, Any] | None:
        row = await state_of(one_cell)
        return row if row and row["state"] == "CRASHED" else None

    row = await until("the instance is CRASHED", crashed)
    stored = await one_cell.request("GET", row["failure"]["instance"])
    assert stored.json == row["failure"]
    assert (stored.json["code"], stored.json["outcome"]) == ("app.exited", "rolled_back")
    assert stored.json["evidence"]["exit_status"] == 9


async def test_the_caller_hangs_up(one_cell: Installation) -> None:
    """The cascade belongs to the server: it goes on, and what was asked becomes true."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.05)) as impatient:
        with pytest.raises(asyncio.TimeoutError):
            await impatient.post(f"{one_cell.url}/v1/desired_lrps", json=SLOW)
    row = await running(one_cell)
    assert row["state"] == "RUNNING"
    assert (await one_cell.failures()) == []


async def test_the_caller_of_a_delete_hangs_up(one_cell: Installation) -> None:
    stubborn = lrp(script="trap '' TERM; while :; do sleep 0.1; done")
    assert (await one_cell.desire(stubborn)).status == 201
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.05)) as impatient:
        with pytest.raises(asyncio.TimeoutError):
            await impatient.delete(f"{one_cell.url}/v1/desired_lrps/web")

    async def gone() -> bool:
        return await state_of(one_cell) is None

    await until("the instance is gone", gone)
    assert one_cell.left() == []


async def test_who_waits_for_a_task_and_hangs_up_is_not_waited_for(one_cell: Installation) -> None:
    assert (await one_cell.run_task(task(script="sleep 1000"))).status == 201
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.1)) as impatient:
        with pytest.raises(asyncio.TimeoutError):
            await impatient.get(f"{one_cell.url}/v1/tasks/job?until=completed", headers={"Prefer": "wait=600"})
    await until_true("the request is over", lambda: '"op": "get_task"' in one_cell.log_text)
