"""A whole installation on one machine: Postgres, one BBS and some cells as child processes of ours.

The children end when we end, however we end; containers do not. Needs root. Layout: STATE/postgres, STATE/bbs.json,
STATE/cells/CELL (with its config.json), STATE/logs/{bbs,CELL}.log.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attrs import define, field

from diego_py.clients.bbs import BbsClient
from diego_py.embedded import host_sweep
from diego_py.embedded.children import Child, Children, tail
from diego_py.embedded.cluster_layout import (
    CELLS_MAX,
    CellLayout,
    ClusterError,
    cell_layout,
    cell_settings,
    claim_slot,
    free_port,
    memory_mb_of_each,
    release_slot,
)
from diego_py.embedded.host_sweep import Thing
from diego_py.embedded.postgres import EmbeddedPostgres
from diego_py.errors import DiegoError, IllegalTransition, TaskNotFound

__all__ = ["Child", "Cluster", "ClusterError"]

STORE_MB_MIN = 256
"""A smaller btrfs has no room for anything."""
BBS = "bbs"
UNDER_WAY = ("PENDING", "RUNNING")
"""States of tasks that have not come to their end."""


def _real(path: Path) -> Path:
    return path.resolve()


@define
class Cluster:
    """Started from the main thread; the children end with the thread that started them."""

    state_dir: Path = field(converter=_real)
    cells: int = 2
    bbs_port: int = 0
    """0 takes any free one."""
    image_root: Path = Path("/var/lib/diego/rootfs")
    memory_mb: int = 0
    """Of each cell; 0 shares out three quarters of the host's."""
    bbs_settings: Mapping[str, Any] = field(factory=dict)
    """More settings of the BBS, by their names in its configuration."""
    cell_settings: Mapping[str, Any] = field(factory=dict)
    """More settings of every cell."""
    durable: bool = True
    """False gives up safety against power loss for speed."""
    _postgres: EmbeddedPostgres | None = field(default=None, init=False)
    _children: Children = field(factory=Children, init=False)
    _layouts: dict[str, CellLayout] = field(factory=dict, init=False)

    @property
    def url(self) -> str:
        """Where the BBS listens."""
        return f"http://127.0.0.1:{self.bbs_port}"

    @property
    def layouts(self) -> tuple[CellLayout, ...]:
        """Of every cell, running or not."""
        return tuple(self._layouts.values())

    @property
    def children(self) -> tuple[Child, ...]:
        return self._children.all()

    async def start(self) -> None:
        """Start everything; returns when the BBS is ready and knows every cell. Raises ClusterError."""
        if os.geteuid() != 0:
            raise ClusterError("start a cluster: making containers needs root")
        if not 0 <= self.cells <= CELLS_MAX:
            raise ClusterError(f"start {self.cells} cells: at most {CELLS_MAX} on one machine")
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(self.stop)
            self._make_directories()
            self._postgres = EmbeddedPostgres(self.state_dir, durable=self.durable)
            await self._postgres.start()
            await self.start_bbs()
            started = await asyncio.gather(*map(self.start_cell, self._layouts), return_exceptions=True)
            if failures := [outcome for outcome in started if isinstance(outcome, BaseException)]:
                raise failures[0]
            undo.pop_all()

    async def stop(self) -> None:
        """Stop cells, then the BBS, then Postgres. Containers run on. Does nothing when nothing runs."""
        await self._children.end([child for child in self.children if child.name != BBS])
        await self._children.end([child for child in self.children if child.name == BBS])
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

    async def start_bbs(self) -> None:
        """Start the BBS, again if it was killed; returns when it is ready."""
        if self._postgres is None:
            raise ClusterError("start the BBS: its Postgres is not running")
        self.bbs_port = self.bbs_port or free_port()
        settings = {"dsn": self._postgres.dsn, "listen_port": self.bbs_port, **self.bbs_settings}
        log_path = self.state_dir / "logs" / "bbs.log"
        await self._children.start(BBS, "bbs", self.state_dir / "bbs.json", settings, self.url, log_path)

    async def start_cell(self, cell_id: str) -> None:
        """Start a cell, again if it was killed; returns when it is ready and the BBS counts it as live."""
        layout = self._layouts[cell_id]
        port = free_port()
        settings, url = self._cell_config(layout, port), f"http://127.0.0.1:{port}"
        child = await self._children.start(cell_id, "cells", layout.config_path, settings, url, layout.log_path)
        await self._children.until(child, "known to the BBS", lambda: _is_live(self.url, cell_id))

    async def kill_cell(self, cell_id: str) -> None:
        """Kill a cell's process at once; its containers run on."""
        await self._children.kill(cell_id)

    def remove_cell(self, cell_id: str) -> list[Thing]:
        """Remove a killed cell's containers from the host, as if the host had died. Returns what would not go."""
        if not self._children.get(cell_id).ended:
            raise ClusterError(f"remove {cell_id}: its process is running")
        return host_sweep.remove(self._layouts[cell_id].names)

    async def kill_bbs(self) -> None:
        """Kill the BBS at once."""
        await self._children.kill(BBS)

    def failed_child(self) -> Child | None:
        """A child that ended and was not asked to; each is told once."""
        return self._children.failed()

    async def delete_everything(self) -> list[str]:
        """Delete every desired LRP and cancel every task through the API. Returns what could not be, and why."""
        async with BbsClient(self.url) as bbs:
            desired = await bbs.desired_lrps()
            under_way = [task for state in UNDER_WAY for task in await bbs.tasks(state=state)]
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_deleted(bbs, lrp.definition.process_guid)) for lrp in desired]
                tasks += [group.create_task(_cancelled(bbs, task.task_guid)) for task in under_way]
        return [problem for task in tasks if (problem := task.result())]

    def leftovers(self) -> list[Thing]:
        """All that is on the host because of containers of this cluster."""
        return host_sweep.all_of([layout.names for layout in self.layouts], host_sweep.of_containers)

    async def purge(self) -> list[Thing]:
        """Remove whatever of this state directory is left on the host; the cluster must be stopped.

        Also what an earlier, killed cluster left. Returns what would not go. The state directory itself stays.
        """
        if any(not child.ended for child in self.children):
            raise ClusterError(f"purge {self.state_dir}: its processes are running")
        self._lay_out()
        left: list[Thing] = []
        for number in range(1, CELLS_MAX + 1):
            layout = cell_layout(self.state_dir, self._slot(), number)
            if layout.state_dir.exists():
                left += await asyncio.to_thread(host_sweep.remove, layout.names)
        if not left:
            release_slot(self.state_dir)
        return left

    def log_tail(self, name: str) -> str:
        """The last lines of a child's log."""
        return tail(self.state_dir / "logs" / f"{name}.log")

    def _slot(self) -> int:
        return claim_slot(self.state_dir)

    def _lay_out(self) -> None:
        slot = self._slot()
        layouts = [cell_layout(self.state_dir, slot, number) for number in range(1, self.cells + 1)]
        self._layouts = {layout.cell_id: layout for layout in layouts}

    def _make_directories(self) -> None:
        """A container's root is nobody on the host and must be able to pass through."""
        made = [self.state_dir, self.state_dir / "cells", self.image_root]
        for path in made:
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(path.stat().st_mode | 0o711)
        (self.state_dir / "logs").mkdir(exist_ok=True)
        self._lay_out()
        for layout in self.layouts:
            layout.state_dir.mkdir(exist_ok=True)
            layout.state_dir.chmod(0o711)

    def _cell_config(self, layout: CellLayout, port: int) -> dict[str, Any]:
        # A store that promises more than there is would fail all of a cell's containers at once.
        free_mb = shutil.disk_usage(self.state_dir).free // 2**20
        disk_mb = max(STORE_MB_MIN, free_mb * 3 // 4 // max(1, self.cells))
        memory_mb = self.memory_mb or memory_mb_of_each(self.cells)
        return {
            **cell_settings(layout, self.image_root, memory_mb, disk_mb),
            "listen_port": port,
            "bbs_urls": [self.url],
            # Who may use this installation has the machine: a registry of theirs on its loopback is no secret to them.
            "allowed_registries": ["*", "localhost:*", "127.0.0.1:*"],
            **self.cell_settings,
        }


async def _cancelled(bbs: BbsClient, task_guid: str) -> str | None:
    """Cancel a task. Returns why it could not be; one that has ended meanwhile is as good."""
    try:
        await bbs.cancel_task(task_guid)
    except (IllegalTransition, TaskNotFound):
        return None
    except DiegoError as error:
        return f"task {task_guid}: {error.root.message}"
    return None


async def _deleted(bbs: BbsClient, process_guid: str) -> str | None:
    """Delete one LRP; the reason when it would not go."""
    try:
        await bbs.delete(process_guid)
    except DiegoError as error:
        return f"{process_guid}: {error.root.message}"
    return None


async def _is_live(url: str, cell_id: str) -> bool:
    try:
        async with BbsClient(url) as bbs:
            return any(cell.cell_id == cell_id and cell.live for cell in await bbs.cells())
    except DiegoError:
        return False
