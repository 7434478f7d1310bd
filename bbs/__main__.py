"""`python -m bbs --config FILE`: run a BBS until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from bbs.app import build
from bbs.config import BbsConfig
from diego_py.service import collector, descriptors
from diego_py.service.clock import SystemClock
from diego_py.service.config import ConfigError, load
from diego_py.service.log import logger
from diego_py.service.run import Process


async def run(config: BbsConfig) -> int:
    """Build the process, run it, and return its exit status."""
    descriptors.raise_limit()
    log = logger("bbs", config.id)
    process = Process(log)
    bbs = build(config, SystemClock(), log, process)
    collector.settle()
    return await process.run(bbs.parts, lambda: log.info("listening", port=bbs.listener.port))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bbs", description="The BBS of diego-py.")
    parser.add_argument("--config", type=Path, required=True, help="JSON file; see bbs/config.py for every setting")
    try:
        config = load(BbsConfig, parser.parse_args().config)
    except ConfigError as wrong:
        print(wrong, file=sys.stderr)
        return 2
    return asyncio.run(run(config))


if __name__ == "__main__":
    sys.exit(main())
