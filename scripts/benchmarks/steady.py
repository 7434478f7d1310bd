"""What a BBS and its Postgres use while cells report, convergence looks at every row, and nothing changes."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence

from scripts.benchmarks.probes import Told, asked_for, cores, measured, parser, percentiles
from scripts.benchmarks.site import live_cells, site

PROBE_PAUSE_S = 0.05


def main(arguments: Sequence[str]) -> int:
    options = parser("steady", __doc__)
    options.add_argument("--cells", type=int, default=1000)
    options.add_argument("--instances", type=int, default=2000)
    options.add_argument("--seconds", type=float, default=15.0, help="of each round")
    options.add_argument("--settle", type=float, default=30.0, help="seconds before the first round")
    return measured(options, arguments, 3, _measure)


async def _measure(options: argparse.Namespace) -> Told:
    told = Told()
    async with site(options.cells, instances=options.instances) as place:
        await asyncio.sleep(options.settle)  # every cell has reported twice, and been settled
        for _ in range(options.rounds):
            before, began_s = place.cpu_s(), time.perf_counter()
            milliseconds = await asked_for(options.seconds, PROBE_PAUSE_S, lambda: place.request("GET", "/livez"))
            cores(told, before, place.cpu_s(), time.perf_counter() - began_s)
            percentiles(told, "GET /livez meanwhile", milliseconds)
            told.add("live cells", await live_cells(place))
            told.add("bbs, MiB", place.rss_mib("bbs"))
    return told
