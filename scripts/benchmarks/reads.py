"""Lists of instances from a table that is as long as wanted: one LRP's, and all of them, page by page as NDJSON."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial

import asyncpg

from scripts.benchmarks.probes import EACH, Told, measured, parser, percentiles, timed
from scripts.benchmarks.site import Site, site

NDJSON = {"Accept": "application/x-ndjson"}
ROWS = """
    INSERT INTO actual_lrps (process_guid, index, presence, domain, state, instance_guid, cell_id, net_info, since,
                             crash_count, attempts, routable, availability_zone, tag_epoch, tag_index)
    SELECT 'read-' || to_char(number / $2, 'FM000000'), number % $2, 'ORDINARY', 'bench', 'RUNNING',
           gen_random_uuid()::text, 'read-cell-' || number % 5000, $3, now(), 0, 0, true, 'z1', 'epoch', 1
    FROM generate_series(0, $1 - 1) AS number
"""
NET_INFO = b'{"address":"10.0.0.1","ports":[{"container_port":8080,"host_port":61001}],"instance_address":"10.254.0.2"}'
STANDS_STILL = {"convergence_interval_s": 86_400.0}
"""Rows of cells that nobody ever saw would be looked after at once."""


def main(arguments: Sequence[str]) -> int:
    options = parser("reads", __doc__)
    options.add_argument("--rows", type=int, default=25_000)
    options.add_argument("--reads", type=int, default=200, help="of one LRP's instances, in each round")
    return measured(options, arguments, 3, _measure)


async def _measure(options: argparse.Namespace) -> Told:
    told = Told()
    async with site(1, STANDS_STILL) as place:
        database = await asyncpg.connect(place.postgres.dsn)
        try:
            await database.execute(ROWS, options.rows, EACH, NET_INFO, timeout=600)
            await database.execute("ANALYZE actual_lrps")
        finally:
            await database.close()
        lrps = max(1, options.rows // EACH)
        for _ in range(options.rounds):
            guids = [f"read-{number * 7919 % lrps:06d}" for number in range(options.reads)]
            paths = [f"/v1/actual_lrps?process_guid={guid}&limit={EACH}" for guid in guids]
            milliseconds = [await timed(partial(place.request, "GET", path)) for path in paths]
            percentiles(told, f"one LRP's {EACH} instances", milliseconds)
            await _all(place, told)
    return told


async def _all(place: Site, told: Told) -> None:
    """Every row, following the links."""
    before_mib, before, began_s = place.rss_mib("bbs"), place.cpu_s(), time.perf_counter()
    rows, path, most_mib = 0, "/v1/actual_lrps?limit=5000", 0.0
    while path:
        page = (await place.request("GET", path, **NDJSON)).expect(200)
        rows += page.body.count(b"\n")
        most_mib = max(most_mib, place.rss_mib("bbs"))
        path = page.headers.get("Link", "").partition("<")[2].partition(">")[0]
    seconds, after = time.perf_counter() - began_s, place.cpu_s()
    told.add("all rows: a second", rows / seconds)
    told.add("all rows: BBS, CPU microseconds each", (after["bbs"] - before["bbs"]) * 1e6 / rows)
    told.add("all rows: Postgres, CPU microseconds each", (after["postgres"] - before["postgres"]) * 1e6 / rows)
    told.add("all rows: more memory of the BBS, MiB", most_mib - before_mib)
