"""A whole installation without root: Postgres, one BBS, and simulated cells in one process, all children of ours.

Layout: STATE/postgres, STATE/bbs.json, STATE/cells.json, STATE/logs/{bbs,cells}.log.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attrs import define, field

from diego_py.clients.bbs import BbsClient
from diego_py.embedded.children import Child, Children
from diego_py.embedded.cluster_layout import free_port
from diego_py.embedded.postgres import EmbeddedPostgres
from diego_py.errors import DiegoError

BBS, CELLS = "bbs", "cells"
KNOWN_POLL_S = 0.2


def _real(path: Path) -> Path:
    return path.resolve()


@define
class SimulatedCluster:
    """Started from the main thread; the children end with the thread that started them."""

    state_dir: Path = field(converter=_real)
    cells: int = 2
    bbs_port: int = 0
    """0 takes any free one."""
    bbs_settings: Mapping[str, Any] = field(factory=dict)
    """More settings of the BBS, by their names in its configuration."""
    cell_settings: Mapping[str, Any] = field(factory=dict)
    """The same of the cells (cells/simulated/config.py)."""
    durable: bool = True
    """False gives up safety against power loss for speed."""
    _postgres: EmbeddedPostgres | None = field(default=None, init=False)
    _children: Children = field(factory=Children, init=False)

    @property
    def url(self) -> str:
        """Where the BBS listens."""
        return f"http://127.0.0.1:{self.bbs_port}"

    @property
    def children(self) -> tuple[Child, ...]:
        return self._children.all()

    @property
    def cells_url(self) -> str:
        """Where all the cells listen."""
        return self._children.get(CELLS).url

    async def start(self) -> None:
        """Start everything; returns when the BBS knows every cell. Raises ClusterError, EmbeddedPostgresError."""
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(self.stop)
            (self.state_dir / "logs").mkdir(parents=True, exist_ok=True)
            self._postgres = EmbeddedPostgres(self.state_dir, durable=self.durable)
            await self._postgres.start()
            self.bbs_port = self.bbs_port or free_port()
            bbs = {"dsn": self._postgres.dsn, "listen_port": self.bbs_port, **self.bbs_settings}
            await self._started(BBS, "bbs", self.url, bbs)
            port = free_port()
            cells = {"cells": self.cells, "bbs_urls": [self.url], "listen_port": port, **self.cell_settings}
            child = await self._started(CELLS, "cells.simulated", f"http://127.0.0.1:{port}", cells)
            await self._children.until(child, "known to the BBS", self._all_known)
            undo.pop_all()

    async def stop(self) -> None:
        """Stop cells, then the BBS, then Postgres. Does nothing when nothing runs."""
        for name in (CELLS, BBS):
            await self._children.end([child for child in self.children if child.name == name])
        postgres, self._postgres = self._postgres, None
        if postgres is not None:
            await postgres.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def failed_child(self) -> Child | None:
        """A child that ended and was not asked to; each is told once."""
        return self._children.failed()

    async def _started(self, name: str, package: str, url: str, settings: Mapping[str, Any]) -> Child:
        config, log_path = self.state_dir / f"{name}.json", self.state_dir / "logs" / f"{name}.log"
        return await self._children.start(name, package, config, settings, url, log_path)

    async def _all_known(self) -> bool:
        await asyncio.sleep(KNOWN_POLL_S)
        try:
            async with BbsClient(self.url) as bbs:
                return sum(cell.live for cell in await bbs.cells()) >= self.cells
        except DiegoError:
            return False
