"""`python -m cells.simulated --config FILE`: simulated cells until SIGTERM. FILE may be - for standard input."""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
from pathlib import Path

from cells.simulated.app import build
from cells.simulated.config import SimulationConfig
from diego_py.service import descriptors
from diego_py.service.clock import SystemClock
from diego_py.service.config import ConfigError, load
from diego_py.service.log import WARNING, logger
from diego_py.service.run import Process

YOUNG_MAX = 50_000
"""Objects that are made before the youngest are collected: instances are many small objects that live for long."""


async def run(config: SimulationConfig) -> int:
    """Start all cells, serve, stop."""
    descriptors.raise_limit()
    log = logger("simulated_cells", config.prefix, level=WARNING)
    process = Process(log)
    cells = build(config, SystemClock(), log, process)
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, 20, 100)
    return await process.run([cells], lambda: print(f"{config.cells} cells at port {cells.port}", flush=True))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cells.simulated", description="Cells without containers.")
    parser.add_argument("--config", type=Path, required=True, help="JSON file; see cells/simulated/config.py")
    path = parser.parse_args().config
    try:
        config = load(SimulationConfig, Path("/dev/stdin") if str(path) == "-" else path)
    except ConfigError as wrong:
        print(f"simulated cells: {wrong}", file=sys.stderr)
        return 2
    return asyncio.run(run(config))


if __name__ == "__main__":
    sys.exit(main())
