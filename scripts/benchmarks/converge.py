"""What a pass of convergence costs while nothing is wrong, and while one instance of a hundred is; what others wait.

Rows and cells are put into Postgres: they run nowhere. What is wrong has crashed and waits for its next attempt: each
pass reads and plans it, and none repairs it.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import asyncpg

from bbs.convergence.plan import Plan, Snapshot, in_pieces
from bbs.convergence.reading import Reading, read
from bbs.store.database import Database
from bbs.store.transaction import Transaction
from diego_py.call import Call
from diego_py.service.clock import SystemClock
from scripts.benchmarks.prefill import prefill
from scripts.benchmarks.probes import Told, asked_for, measured, parser, percentiles
from scripts.benchmarks.site import Site, site

PREFIX = "row"
PASSES = 3
PROBE_PAUSE_S = 0.02
BUDGET_MS = 600_000.0
CELLS = """
    INSERT INTO cells (cell_id, boot_id, url, zone, address, presence, available_memory_mb, available_disk_mb,
                       available_containers, sequence, told, seen_at, expires_at)
    SELECT $2 || to_char(number, '-FM00000'), 'boot', url, zone, address, presence, 0, 0, 0, 1, 1, now(),
           now() + interval '1 day'
    FROM cells, generate_series(1, $1) AS number WHERE cell_id = 'sim-00001'
"""
"""Nobody asks them for anything: they are as the simulated one says it is, and full."""
WRONG = """
    UPDATE actual_lrps SET state = 'CRASHED', crash_count = 3, cell_id = NULL, instance_guid = NULL, net_info = NULL,
                           routable = false, next_attempt_at = now() + interval '1 day'
    WHERE index = 0
"""
"""One of the hundred instances of each LRP."""


def main(arguments: Sequence[str]) -> int:
    options = parser("converge", __doc__)
    options.add_argument("--cells", type=int, default=7_500)
    options.add_argument("--instances", default="1000,10000,100000,250000", help="sizes, each on an installation anew")
    options.add_argument("--seconds", type=float, default=10.0, help="of requests of each kind, beside passes")
    return measured(options, arguments, 1, _measure)


async def _measure(options: argparse.Namespace) -> Told:
    told = Told()
    for instances in (int(size) for size in options.instances.split(",")):
        for _ in range(options.rounds):
            await _one(told, instances, min(options.cells, instances), options.seconds)
    return told


async def _one(told: Told, instances: int, cells: int, seconds: float) -> None:
    async with site(1) as place:
        connection = await asyncpg.connect(place.postgres.dsn)
        try:
            await connection.execute(CELLS, cells, PREFIX, timeout=600)
            await prefill(place.postgres.dsn, cells, instances, PREFIX)
            await _passes(told, f"{instances} rows, all well", place, seconds)
            await connection.execute(WRONG, timeout=600)
            await connection.execute("VACUUM ANALYZE actual_lrps", timeout=600)
            await _passes(told, f"{instances} rows, 1 % wrong", place, seconds)
        finally:
            await connection.close()


async def _passes(told: Told, name: str, place: Site, seconds: float) -> None:
    """In this process what a pass costs; in the BBS, which passes once a second, what others wait meanwhile."""
    clock = SystemClock()
    database = Database(place.postgres.dsn, clock)
    await database.start()
    try:
        for counted in (True, False):

            async def work(tx: Transaction, counted: bool = counted) -> Reading:
                return await read(tx, counted=counted, may_lose_cells=True, mass_lost=False)

            async def once(work: Callable[[Transaction], Awaitable[Reading]] = work) -> Plan:
                call = Call.begin(clock, BUDGET_MS)
                return _planned((await database.snapshot(call, "read_what_deviates", work)).snapshot)

            await once()  # connects, and has Postgres prepare
            for _ in range(PASSES):
                before, began_s, began_cpu_s = place.cpu_s()["postgres"], time.perf_counter(), time.process_time()
                planned = await once()
                if not planned.empty:
                    raise RuntimeError(f"there is something to do: {planned}"[:1000])
                kind = f"{name}, {'' if counted else 'not '}counted"
                told.add(f"{kind}: ms", (time.perf_counter() - began_s) * 1000)
                told.add(f"{kind}: CPU ms here", (time.process_time() - began_cpu_s) * 1000)
                told.add(f"{kind}: CPU ms in Postgres", (place.cpu_s()["postgres"] - before) * 1000)
        told.add(f"{name}: most memory here, MiB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    finally:
        await database.stop()
    for path in ("/livez", "/v1/desired_lrps/fill-000001"):
        milliseconds = await asked_for(seconds, PROBE_PAUSE_S, partial(place.request, "GET", path))
        percentiles(told, f"{name}: GET {path.rpartition('/')[0] or path}", milliseconds)
    told.add(f"{name}: memory of the BBS, MiB", place.rss_mib("bbs"))


def _planned(snapshot: Snapshot) -> Plan:
    """All pieces of the plan, without a pause between them."""
    pieces = in_pieces(snapshot)
    while True:
        try:
            next(pieces)
        except StopIteration as planned:
            plan: Plan = planned.value
            return plan
