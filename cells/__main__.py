"""`python -m cells --config FILE`: one cell process."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from cells.app import build, network_log
from cells.config import CellConfig
from cells.garden.children import become_subreaper
from cells.garden.garden import Garden
from diego_py.errors import DiegoError
from diego_py.service import collector, descriptors
from diego_py.service.clock import SystemClock
from diego_py.service.config import ConfigError, load
from diego_py.service.log import logger
from diego_py.service.run import Process


def main() -> int:
    """Run until SIGTERM; returns the exit status. Containers run on and are adopted at the next start."""
    parser = argparse.ArgumentParser(prog="python -m cells", description="Run a cell.")
    parser.add_argument("--config", type=Path, required=True, help="JSON file with the settings (cells/config.py)")
    arguments = parser.parse_args()
    try:
        config = load(CellConfig, arguments.config)
        config.garden()
        config.transfers()
    except ConfigError as unusable:
        print(f"cells: {unusable}", file=sys.stderr)
        return 2
    become_subreaper(config.title)
    try:
        return asyncio.run(run(config))
    except DiegoError as failure:
        print(f"cells: cannot start: {failure.root.code}: {failure.root.message}", file=sys.stderr)
        return 1


async def run(config: CellConfig) -> int:
    """Start all parts, serve, stop all parts."""
    descriptors.raise_limit()
    _watch_children_by_pidfd()
    clock = SystemClock()
    log = logger("cell", config.cell_id)
    process = Process(log)
    cell = build(config, Garden(config.garden(), clock, network_log(log)), clock, log, process.defect)
    collector.settle()
    return await process.run(cell.parts)


def _watch_children_by_pidfd() -> None:
    """Python 3.11 would start a thread for each child; from 3.12 on pidfds are what it does by itself."""
    if sys.version_info < (3, 12):
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(asyncio.get_running_loop())
        asyncio.get_event_loop_policy().set_child_watcher(watcher)


if __name__ == "__main__":
    sys.exit(main())
