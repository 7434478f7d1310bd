"""Postgres, a BBS and simulated cells as processes of their own, in a temporary directory. Needs no root."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import asyncpg
import msgspec
from attrs import define, frozen

from cells.simulated.prefilled import EACH
from diego_py.embedded.children import Child, Children
from diego_py.embedded.cluster_layout import free_port
from diego_py.embedded.postgres import EmbeddedPostgres
from scripts.benchmarks.prefill import prefill

T = TypeVar("T")

NDJSON = {"Accept": "application/x-ndjson"}
READY_S = 900.0
"""For each process: thousands of cells, and all that they have, are made before any of them answers: two minutes for a
quarter of a million instances, on a processor of their own."""
POLL_S = 0.2
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
    children: Children

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
        children = Children(READY_S)
        undo.push_async_callback(_end, children)
        made = Site(directory, postgres, _free_url(), _free_url(), {"postgres": postgres.pid}, session, children)
        instances -= instances % EACH
        if instances:
            await prefill(postgres.dsn, cells, instances)
            await _lead(postgres.dsn, "infinity")
        bbs = {"dsn": postgres.dsn, "listen_port": _port(made.bbs_url), **(bbs_settings or {})}
        simulation = {
            "cells": cells,
            "instances": instances,
            "bbs_urls": [made.bbs_url],
            "listen_port": _port(made.cells_url),
            **(cell_settings or {}),
        }
        await _start(made, "cells", "cells.simulated", simulation, made.cells_url)
        child = await _start(made, "bbs", "bbs", bbs, made.bbs_url)
        await children.until(child, "told of all cells", lambda: _all_live(made, cells))
        state = (await made.simulation("GET", "/v1/simulation")).expect(200).json()
        if state["running"] != instances:
            raise RuntimeError(f"{state['running']} of {instances} instances run")
        if instances:
            await _lead(postgres.dsn, "-infinity")
        yield made


async def _lead(dsn: str, until: str) -> None:
    """Keep every BBS from leading until then: it would replace the instances of cells that have not reported yet."""
    database = await asyncpg.connect(dsn)
    try:
        await database.execute("UPDATE leader SET owner = 'bench', expires_at = $1::text::timestamptz", until)
    finally:
        await database.close()


async def _all_live(site: Site, cells: int) -> bool:
    await asyncio.sleep(POLL_S)
    return await live_cells(site) == cells


async def live_cells(site: Site) -> int:
    """As Postgres has it: the list that the BBS gives would cost it more than all their reports."""
    database = await asyncpg.connect(site.postgres.dsn)
    try:
        live: int = await database.fetchval("SELECT count(*) FROM cells WHERE expires_at > clock_timestamp()")
        return live
    finally:
        await database.close()


async def everything(site: Site, path: str, kind: type[T]) -> AsyncIterator[list[T]]:
    """A whole list of one moment, some at a time, each read as a `kind`. Raises msgspec.ValidationError for a failure
    on the way."""
    decoder, rest = msgspec.json.Decoder(kind), b""
    async with site.session.get(site.bbs_url + path, headers=NDJSON) as response:
        async for piece in response.content.iter_any():
            whole, _, rest = (rest + piece).rpartition(b"\n")
            yield decoder.decode_lines(whole)


async def _start(site: Site, name: str, package: str, settings: Mapping[str, Any], url: str) -> Child:
    config, log = site.directory / f"{name}.json", site.directory / f"{name}.log"
    child = await site.children.start(name, package, config, settings, url, log)
    site.pids[name] = child.process.pid
    return child


async def _end(children: Children) -> None:
    for child in reversed(children.all()):
        await children.end([child])


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
