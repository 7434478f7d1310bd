"""A client of an app that finds it as a router does: it reads again and again where the app is, and asks there.

Nothing is asked a second time: a request that fails has failed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from attrs import define, field

from tests.chain.definitions import HTTP
from tests.chaos.fleet import Fleet

RATE_HZ = 50
READ_S = 0.2
"""Between two readings of the addresses; a replaced instance serves on for the route grace time, 1 s."""
TIMEOUT_S = 5.0
APP = {"ports": [8080], "check_definition": HTTP}


def served(word: str) -> str:
    """The script of an app that answers every request with a word."""
    return f"mkdir -p /tmp/www && echo {word} > /tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www"


@define
class Canary:
    """Asks one LRP all the time, its instances in turn."""

    fleet: Fleet
    process_guid: str
    good: frozenset[bytes]
    """The answers of the app, old and new."""
    asked: int = field(default=0, init=False)
    failed: list[str] = field(factory=list, init=False)
    _urls: list[str] = field(factory=list, init=False)

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """RATE_HZ times a second, for as long as the body takes."""
        await self._read()
        assert self._urls, f"nothing of {self.process_guid} can be asked"
        async with asyncio.TaskGroup() as group:
            work = [group.create_task(self._read_on()), group.create_task(self._ask_on(group))]
            try:
                yield
            finally:
                for task in work:
                    task.cancel()

    async def _ask_on(self, group: asyncio.TaskGroup) -> None:
        due_s = time.monotonic()
        while True:
            group.create_task(self._ask(self._urls[self.asked % len(self._urls)]))
            self.asked += 1
            due_s += 1 / RATE_HZ
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def _ask(self, url: str) -> None:
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await self.fleet.get(url)
        except (aiohttp.ClientError, TimeoutError) as broken:
            told = f"{type(broken).__name__}: {broken}"
        else:
            told = "" if answer.status == 200 and answer.body in self.good else f"{answer.status} {answer.body!r}"
        if told:
            self.failed.append(f"{url} after {time.monotonic() - began_s:.2f} s: {told}")

    async def _read_on(self) -> None:
        while True:
            await asyncio.sleep(READ_S)
            await self._read()

    async def _read(self) -> None:
        """Where it is now, from the first BBS that says so; while none does, the last word stands."""
        for name in self.fleet.bbses:
            try:
                async with asyncio.timeout(1.0):
                    answer = await self.fleet.request(
                        "GET", f"/v1/actual_lrps?process_guid={self.process_guid}", member=name
                    )
            except (aiohttp.ClientError, TimeoutError):
                continue
            if answer.status == 200:
                rows = [row for row in answer.json["items"] if row["state"] == "RUNNING" and row["routable"]]
                self._urls = [url_of(row["net_info"]) for row in rows] or self._urls
                return


def url_of(net_info: dict[str, object]) -> str:
    """Where an instance is asked from outside of its cell."""
    ports = net_info["ports"]
    assert isinstance(ports, list)
    return f"http://{net_info['address']}:{ports[0]['host_port']}/"
