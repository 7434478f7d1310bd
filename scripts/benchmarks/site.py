"""Postgres, a BBS and simulated cells as processes of their own, in a temporary directory. Needs no root."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from attrs import define, field, frozen

from cells.simulated.prefilled import EACH
from diego_py.embedded.cluster_layout import free_port
from diego_py.embedded.postgres import EmbeddedPostgres
from scripts.benchmarks.prefill import prefill

READY_S = 1_800.0
POLL_S = 0.1
SATURATED = 503
"""Reports of all cells at once come first."""
STOP_S = 60.0
PLENTY = aiohttp.ClientTimeout(total=900)
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@frozen
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def expect(self, *statuses: int) -> Answer:
        if self.status not in statuses:
            raise RuntimeError(f"status {self.status}, not {statuses}: {self.body[:3000].decode(errors='replace')}")
        return self


@define
class Site:
    """One installation under measurement, and a connection to it."""

    directory: Path
    postgres: EmbeddedPostgres
    bbs_url: str
    cells_url: str
    pids: dict[str, int]
    session: aiohttp.ClientSession
    children: list[asyncio.subprocess.Process] = field(factory=list)

    async def request(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Ask the BBS."""
        return await self._request(self.bbs_url, method, path, body, headers)

    async def simulation(self, method: str, path: str, body: object = None) -> Answer:
        """Ask the simulator."""
        return await self._request(self.cells_url, method, path, body, {})

    async def _request(self, url: str, method: str, path: str, body: object, headers: Mapping[str, str]) -> Answer:
        content = None if body is None else json.dumps(body).encode()
        kind = {} if content is None else {"Content-Type": "application/json"}
        async with self.session.request(method, url + path, data=content, headers={**headers, **kind}) as response:
            return Answer(response.status, response.headers, await response.read())

    def cpu_s(self) -> dict[str, float]:
        """Seconds of processor time that each kind of process has used so far."""
        return {name: _tree_cpu_s(pid) for name, pid in self.pids.items()} | {"client": _tree_cpu_s(os.getpid(), False)}

    def rss_mib(self, name: str) -> float:
        """Resident memory of one process."""
        lines = Path(f"/proc/{self.pids[name]}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


@asynccontextmanager
async def site(
    cells: int,
    bbs_settings: Mapping[str, Any] | None = None,
    cell_settings: Mapping[str, Any] | None = None,
    instances: int = 0,
) -> AsyncIterator[Site]:
    """Everything started, with so many instances that run already; on the way out everything stopped and removed."""
    async with contextlib.AsyncExitStack() as undo:
        directory = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="diego-bench-")))
        directory.chmod(0o711)
        postgres = EmbeddedPostgres(directory)
        await postgres.start()
        undo.push_async_callback(postgres.stop)
        session = await undo.enter_async_context(
            aiohttp.ClientSession(timeout=PLENTY, connector=aiohttp.TCPConnector(limit=0))
        )
        made = Site(directory, postgres, _free_url(), _free_url(), {"postgres": _pid_of(postgres)}, session)
        undo.push_async_callback(_end, made)
        instances -= instances % EACH
        if instances:
            await prefill(postgres.dsn, cells, instances)
        bbs = {"dsn": postgres.dsn, "listen_port": _port(made.bbs_url), **(bbs_settings or {})}
        simulation = {
            "cells": cells,
            "instances": instances,
            "bbs_urls": [made.bbs_url],
            "listen_port": _port(made.cells_url),
            **(cell_settings or {}),
        }
        # The cells first: a BBS that finds rows of cells that never reported would look after their instances.
        await _spawn(made, "cells", "cells.simulated", simulation, made.cells_url)
        await _spawn(made, "bbs", "bbs", bbs, made.bbs_url)
        await _until_known(made, cells, instances)
        yield made


async def _until_known(site: Site, cells: int, instances: int) -> None:
    """The BBS knows every cell as live, and the cells have what they had."""

    async def known() -> bool:
        state = (await site.simulation("GET", "/v1/simulation")).expect(200).json()
        if (await site.request("GET", "/v1/cells?limit=1")).status == SATURATED:
            return False
        return state["running"] == instances and await live_cells(site) == cells

    await _until(site, known)


async def live_cells(site: Site) -> int:
    return sum(cell["live"] for cell in await everything(site, "/v1/cells"))


async def everything(site: Site, path: str) -> list[Any]:
    """All items of a list, page by page."""
    items: list[Any] = []
    following = f"{path}{'&' if '?' in path else '?'}limit=5000"
    while True:
        page = (await site.request("GET", following)).expect(200).json()
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        base = following.split("&cursor=")[0]
        following = f"{base}&cursor={page['next_cursor']}"


async def _spawn(site: Site, name: str, package: str, settings: Mapping[str, Any], url: str) -> None:
    config = site.directory / f"{name}.json"
    config.write_text(json.dumps(settings))
    with (site.directory / f"{name}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", package, "--config", str(config), stdout=log, stderr=log
        )
    site.children.append(process)
    site.pids[name] = process.pid

    async def ready() -> bool:
        try:
            async with site.session.get(f"{url}/readyz") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    await _until(site, ready)


async def _until(site: Site, holds: Callable[[], Awaitable[bool]]) -> None:
    """Poll until it is so. Raises RuntimeError when a process ends before."""
    async with asyncio.timeout(READY_S):
        while not await holds():
            for process in site.children:
                if process.returncode is not None:
                    logs = [path.read_text(errors="replace")[-3000:] for path in site.directory.glob("*.log")]
                    raise RuntimeError(f"a process ended with status {process.returncode}: {logs}")
            await asyncio.sleep(POLL_S)


async def _end(site: Site) -> None:
    for process in reversed(site.children):
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


def _pid_of(postgres: EmbeddedPostgres) -> int:
    return int((postgres.data_dir / "postmaster.pid").read_text().splitlines()[0])


def _free_url() -> str:
    return f"http://127.0.0.1:{free_port()}"


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


def _tree_cpu_s(pid: int, children: bool = True) -> float:
    """Of a process, its children that ended, and those that run."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = sum(int(word) for word in words[11 : 15 if children else 13])
    if not children:
        return ticks / TICKS
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    running = 0.0
    for child in below:
        with contextlib.suppress(FileNotFoundError):
            running += _tree_cpu_s(int(child), children=False)
    return ticks / TICKS + running
