"""Lists of instances from tables as long as wanted: one LRP's, alone and beside all of them; all of them; and 304s."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import asyncpg
from attrs import define

from scripts.benchmarks import diego_wire
from scripts.benchmarks.probes import EACH, Told, measured, parser, percentiles, timed
from scripts.benchmarks.site import NDJSON, Site, site

OVER_DIEGO = "--diego"
ALL = "/v1/actual_lrps"
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
WRITE_OUT_PEAK = "5"
"""For clear_refs: the most that was resident is counted anew."""
READER_NICENESS = "5"
"""Who reads everything as quickly as it can leaves the processors to what is measured."""
READER = """
import sys, urllib.request
while True:
    with urllib.request.urlopen(urllib.request.Request(sys.argv[1], headers={"Accept": sys.argv[2]})) as answer:
        while answer.read(2**20):
            pass
"""


def main(arguments: Sequence[str]) -> int:
    options = parser("reads", __doc__)
    options.add_argument("--rows", default="250000", help="sizes, one after another; 1000,10000,100000,250000")
    options.add_argument("--reads", type=int, default=200, help="of one LRP's instances, in each round")
    options.add_argument(OVER_DIEGO, action="store_true", help="over Diego's wire, and its changes: `bench diego_wire`")
    if OVER_DIEGO in arguments:
        return diego_wire.main([word for word in arguments if word != OVER_DIEGO])
    return measured(options, arguments, 3, _measure)


async def _measure(options: argparse.Namespace) -> Told:
    told = Told()
    for rows in map(int, options.rows.split(",")):
        async with site(1, STANDS_STILL) as place:
            database = await asyncpg.connect(place.postgres.dsn)
            try:
                await database.execute(ROWS, rows, EACH, NET_INFO, timeout=600)
                await database.execute("VACUUM ANALYZE actual_lrps", timeout=600)
            finally:
                await database.close()
            reads = Reads(place, told, rows, options.reads)
            for _ in range(options.rounds):
                await reads.one_lrp("one LRP's instances")
                await reads.all_rows()
                async with reads.beside_all_rows():
                    await reads.one_lrp("the same beside all rows")
                await reads.unchanged()
    return told


@define
class Reads:
    """What is measured of a table of one size."""

    place: Site
    told: Told
    rows: int
    reads: int

    async def one_lrp(self, what: str) -> None:
        """Its instances, again and again of another LRP."""
        lrps = max(1, self.rows // EACH)
        guids = [f"read-{number * 7919 % lrps:06d}" for number in range(self.reads)]
        paths = [f"{ALL}?process_guid={guid}&limit={EACH}" for guid in guids]
        milliseconds = [await timed(partial(self.place.request, "GET", path)) for path in paths]
        percentiles(self.told, f"{self.rows} rows: {what}", milliseconds)

    async def all_rows(self) -> None:
        """Every row in one answer, and what that costs."""
        place, before, rss_mib = self.place, self.place.cpu_s(), self.place.rss_mib("bbs")
        _forget_peak(place.pids["bbs"])
        began_s = time.perf_counter()
        read = await self._stream()
        seconds, after = time.perf_counter() - began_s, place.cpu_s()
        if read != self.rows:
            raise RuntimeError(f"{read} rows came of {self.rows}")
        self.add("a second", read / seconds)
        for name in ("bbs", "postgres"):
            self.add(f"CPU microseconds each, {name}", (after[name] - before[name]) * 1e6 / read)
        self.add("more memory of the BBS at most, MiB", _peak_mib(place.pids["bbs"]) - rss_mib)

    @asynccontextmanager
    async def beside_all_rows(self) -> AsyncIterator[None]:
        """All rows are read by another process, one time after the other, as long as the block lasts."""
        reader = await asyncio.create_subprocess_exec(
            "nice", "-n", READER_NICENESS, sys.executable, "-c", READER, self.url, NDJSON["Accept"]
        )
        try:
            yield
        finally:
            reader.terminate()
            await reader.wait()

    async def unchanged(self) -> None:
        """304s: of one LRP's list, and of all rows."""
        for what, path, count in (
            ("one LRP's list", f"{ALL}?process_guid=read-000000&limit={EACH}", self.reads),
            ("all rows", ALL, 3),
        ):
            async with self.place.session.get(self.place.bbs_url + path, headers=NDJSON) as response:
                known = {**NDJSON, "If-None-Match": response.headers["ETag"]}
                await response.read()
            began_s = time.perf_counter()
            for _ in range(count):
                (await self.place.request("GET", path, **known)).expect(304)
            self.told.add(f"{self.rows} rows: 304s a second, {what}", count / (time.perf_counter() - began_s))

    def add(self, what: str, value: float) -> None:
        self.told.add(f"{self.rows} rows: all, {what}", value)

    @property
    def url(self) -> str:
        return self.place.bbs_url + ALL

    async def _stream(self) -> int:
        """Read all of it, and keep nothing. Returns how many rows came."""
        rows = 0
        async with self.place.session.get(self.url, headers=NDJSON) as response:
            async for piece in response.content.iter_any():
                rows += piece.count(b"\n")
        return rows


def _forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text(WRITE_OUT_PEAK)


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
