"""A running cluster as a test sees it: requests, waiting for what becomes true, and the look at the host in the end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from attrs import define, field

from diego_py.embedded.cluster import Cluster
from tests.chain.answers import Answer
from tests.chain.awaited import LIMIT_S, until

ANSWER_S = 0.5


@define
class Site:
    """One cluster and an HTTP client."""

    cluster: Cluster
    session: aiohttp.ClientSession

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: dict[str, str] | None = None,
        url: str | None = None,
    ) -> Answer:
        async with self.session.request(
            method, (url or self.cluster.url) + path, json=body, headers=headers
        ) as response:
            return Answer(response.status, response.headers.copy(), await response.read())

    async def desire(self, definition: dict[str, Any], url: str | None = None, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.request("POST", "/v1/desired_lrps", definition, named, url)

    async def desired(self, definition: dict[str, Any], url: str | None = None) -> list[dict[str, Any]]:
        """The instances of a new LRP, all of them RUNNING."""
        answer = await self.desire(definition, url)
        assert answer.status == 201, answer.body
        rows: list[dict[str, Any]] = answer.json["actual_lrps"]
        return rows

    async def rows(self, process_guid: str | None = None) -> list[dict[str, Any]]:
        query = f"?process_guid={process_guid}" if process_guid else ""
        items: list[dict[str, Any]] = (await self.request("GET", f"/v1/actual_lrps{query}")).json["items"]
        return items

    async def rows_when(
        self, what: str, holds: Callable[[list[dict[str, Any]]], object], limit_s: float = LIMIT_S
    ) -> list[dict[str, Any]]:
        """All rows as soon as they are as wanted."""

        async def look() -> list[dict[str, Any]] | None:
            rows = await self.rows()
            return rows if holds(rows) else None

        return await until(what, look, limit_s)

    async def failures(self, process_guid: str) -> list[dict[str, Any]]:
        """Stored failures of an LRP, the newest first."""
        answer = await self.request("GET", f"/v1/failures?process_guid={process_guid}")
        items: list[dict[str, Any]] = answer.json["items"]
        return items

    async def containers(self, cell_id: str) -> set[str]:
        """Handles of what a cell has."""
        child = next(child for child in self.cluster.children if child.name == cell_id)
        items = (await self.request("GET", "/v1/containers", url=child.url)).json["items"]
        return {item["handle"] for item in items}

    async def delete(self, process_guid: str) -> Answer:
        return await self.request("DELETE", f"/v1/desired_lrps/{process_guid}")

    async def end(self) -> None:
        """Delete all there is; nothing of it may be left on the host, and nothing of the cluster afterwards."""
        try:
            if all(not child.ended for child in self.cluster.children):
                assert await self.cluster.delete_everything() == []
                left = self.cluster.leftovers()
                assert left == [], [str(thing) for thing in left]
        finally:
            await self.cluster.stop()
            left = await self.cluster.purge()
            assert left == [], [str(thing) for thing in left]

    def defects(self) -> list[str]:
        """Lines of logs in which a process says that it met a defect of its own."""
        logs = sorted((self.cluster.state_dir / "logs").glob("*.log"))
        lines = [line for log in logs for line in log.read_text().splitlines()]
        return [line for line in lines if "defect" in _event(line)]


def _event(line: str) -> str:
    try:
        return str(json.loads(line).get("event", ""))
    except ValueError:
        return "defect: no event at all"


@define
class Visitor:
    """Asks an address all the time and knows the longest time without a good answer."""

    session: aiohttp.ClientSession
    url: str
    answers: int = 0
    gap_s: float = 0.0
    _stopped: asyncio.Event = field(factory=asyncio.Event, init=False)

    async def visit(self) -> None:
        """Until `stop`."""
        last_s = time.monotonic()
        while not self._stopped.is_set():
            good = await self.is_answered()
            now_s = time.monotonic()
            self.gap_s = max(self.gap_s, now_s - last_s)
            if good:
                self.answers, last_s = self.answers + 1, now_s
            await asyncio.sleep(0.02)

    async def is_answered(self) -> bool:
        try:
            async with self.session.get(self.url, timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as response:
                return response.status == 200 and await response.read() == b"hello\n"
        except (aiohttp.ClientError, TimeoutError):
            return False

    def stop(self) -> None:
        self._stopped.set()


async def all_of(*work: Awaitable[Any]) -> list[Any]:
    """Side by side; the first failure ends all."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_awaited(item)) for item in work]
    return [task.result() for task in tasks]


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work
