"""Cells lost at once: how long until that is noticed, and from then until all they had runs elsewhere."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence

import asyncpg

from scripts.benchmarks.probes import Told, measured, parser
from scripts.benchmarks.site import Site, site

GIVEN_UP_S = 300.0
LOOK_S = 0.25
HELD = "SELECT process_guid, index FROM actual_lrps WHERE cell_id = ANY($1::text[])"
NOW = """
    SELECT count(*) FILTER (WHERE presence = 'SUSPECT') AS suspect,
           count(*) FILTER (
               WHERE presence = 'ORDINARY' AND state = 'RUNNING' AND cell_id <> ALL($3::text[])
           ) AS elsewhere
    FROM unnest($1::text[], $2::integer[]) AS held (process_guid, index) JOIN actual_lrps USING (process_guid, index)
"""
"""Of what the lost cells had only: a look at all rows, four times a second, would be most of what Postgres does."""


def main(arguments: Sequence[str]) -> int:
    options = parser("loss", __doc__)
    options.add_argument("--cells", type=int, default=200)
    options.add_argument("--instances", type=int, default=2000)
    options.add_argument("--lost", type=int, default=10, help="cells lost in each round; back before the next")
    return measured(options, arguments, 3, _measure)


async def _measure(options: argparse.Namespace) -> Told:
    told = Told()
    async with site(options.cells, instances=options.instances) as place:
        database = await asyncpg.connect(place.postgres.dsn)
        try:
            for number in range(options.rounds):
                first = number * options.lost
                names = [f"sim-{one + 1:05d}" for one in range(first, first + options.lost)]
                await _lose(place, database, names, told)
        finally:
            await database.close()
    return told


async def _lose(place: Site, database: asyncpg.Connection, names: list[str], told: Told) -> None:
    held = await database.fetch(HELD, names)
    of_held = [row["process_guid"] for row in held], [row["index"] for row in held]
    began_s = time.perf_counter()
    (await place.simulation("PUT", "/v1/simulation/lost", {"cells": names})).expect(200)
    noticed_s = None
    async with asyncio.timeout(GIVEN_UP_S):
        while (now := await database.fetchrow(NOW, *of_held, names))["elsewhere"] < len(held) or noticed_s is None:
            if noticed_s is None and (now["suspect"] or not held):
                noticed_s = time.perf_counter()
            await asyncio.sleep(LOOK_S)
    told.add("instances lost", len(held))
    told.add("noticed after, s", noticed_s - began_s)
    told.add("from then until all run elsewhere, s", time.perf_counter() - noticed_s)
    (await place.simulation("PUT", "/v1/simulation/lost", {"cells": []})).expect(200)
