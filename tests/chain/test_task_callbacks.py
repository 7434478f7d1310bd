"""Completion callbacks: sent, repeated, taken; refused where only the BBS itself can reach."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from attrs import define, field

from tests.chain.awaited import until, until_true
from tests.chain.definitions import task
from tests.chain.installation import Installation
from tests.chain.proxy import Proxy, to_port

pytestmark = [pytest.mark.chain, pytest.mark.kernel]


@define
class Client:
    """Whoever wants to be called back; answers with `statuses` in turn, then with 200."""

    statuses: list[int] = field(factory=list)
    got: list[dict[str, Any]] = field(factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/done?token=canary-token"

    async def take(self, request: web.Request) -> web.Response:
        self.got.append(await request.json())
        status = self.statuses.pop(0) if self.statuses else 200
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 302 else {})


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    made = Client()
    app = web.Application()
    app.router.add_post("/done", made.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


@pytest.fixture
async def calling(installation: Installation) -> Installation:
    """A cell, and a BBS that may call back to loopback."""
    await installation.stop_bbs()
    await installation.start_bbs(callback_deny_networks=())
    await installation.start_cell(1)
    return installation


async def gone(installation: Installation, task_guid: str) -> None:
    async def look() -> bool:
        return (await installation.request("GET", f"/v1/tasks/{task_guid}")).status == 404

    await until(f"task {task_guid} was taken and is deleted", look)


async def test_called_back_and_deleted(calling: Installation, client: Client) -> None:
    """Well and badly; also what a cell could never begin with."""
    client.statuses = [200, 500, 418]
    for number, (script, path) in enumerate([("exit 0", "/bin/sh"), ("exit 3", "/bin/sh"), ("", "/nowhere")]):
        name = f"job-{number}"
        wanted = task(name, script, run_path=path, completion_callback_url=client.url, annotation=name)
        await calling.run_task(wanted)
        await gone(calling, name)
    assert [(told["task_guid"], told["failed"], told["annotation"]) for told in client.got] == [
        ("job-0", False, "job-0"),
        ("job-1", True, "job-1"),
        ("job-2", True, "job-2"),
    ]
    assert client.got[0]["failure_reason"] == ""
    assert client.got[1]["failure_reason"] == "exited with status 3"
    assert client.got[0]["created_at"] > 10**18, "nanoseconds"
    assert set(client.got[0]) == {"task_guid", "failed", "failure_reason", "result", "annotation", "created_at"}
    assert "canary-token" not in calling.log_text


async def test_called_back_again_until_it_is_taken(calling: Installation, client: Client) -> None:
    client.statuses = [503, 504, 302]
    await calling.run_task(task(completion_callback_url=client.url))
    await gone(calling, "job")
    assert len(client.got) == 3, "a redirect is an answer, and leads nowhere"


async def test_a_client_that_is_away(calling: Installation, client: Client) -> None:
    """The row is given back, and called back for by convergence when he is there."""
    async with Proxy(to_port(lambda: client.port)) as wire:
        url = wire.url + "/done"
        await wire.refuse()
        await calling.run_task(task(completion_callback_url=url), "?until=completed")

        async def recalled() -> bool:
            return "callback_failed" in calling.log_text and (await calling.task())["state"] == "COMPLETED"

        await until("it was tried, and is given back", recalled)
        assert client.got == []
        await wire.listen()
        await again(calling)
        await gone(calling, "job")
    assert len(client.got) == 1


async def again(installation: Installation) -> None:
    """As convergence does when half a minute has passed."""
    tasks = next(route.handler.__self__ for route in installation.bbs.routes if route.op == "list_tasks")  # type: ignore[attr-defined]
    tasks.callbacks.begin("job")


async def test_a_callback_that_may_not_be_called(one_cell: Installation, client: Client) -> None:
    """This host, by whatever name; the task stays for whoever asks for it."""
    names = ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "169.254.169.254")
    for number, name in enumerate(names):
        url = f"http://{name}:{client.port}/done"
        answer = await one_cell.run_task(task(f"job-{number}", completion_callback_url=url), "?until=completed")
        assert answer.status == 201, answer.body
    refused = '"code": "bbs.callback_refused"'
    await until_true("all were refused", lambda: one_cell.log_text.count(refused) == len(names))
    assert client.got == []
    for number in range(len(names)):
        assert (await one_cell.task(f"job-{number}"))["state"] == "COMPLETED"


async def test_who_waits_and_who_is_called_are_both_told(calling: Installation, client: Client) -> None:
    """The end is answered though the callback takes the row away in the same moment."""
    async with asyncio.TaskGroup() as group:
        asked = [
            group.create_task(
                calling.run_task(
                    task(f"job-{number}", "exec sleep 0.2", completion_callback_url=client.url), "?until=completed"
                )
            )
            for number in range(4)
        ]
    statuses = [one.result().status for one in asked]
    assert statuses == [201] * 4, [one.result().body for one in asked]
    await until_true("all are called back for", lambda: len(client.got) == 4)
