"""Three times as many requests as are borne: what is still done, how fast the others are refused, and how it ends."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence

from scripts.benchmarks.api import lrp
from scripts.benchmarks.probes import BUDGET, MEMORY_MB, SLEEP, Told, asked_for, measured, parser, percentiles
from scripts.benchmarks.site import Site, site

TIMES = 3
CLIENTS = 16
AFTERWARDS_S = 10.0
"""In which all should be as it was before; so the ten seconds after these are measured, too."""


def main(arguments: Sequence[str]) -> int:
    options = parser("overload", __doc__)
    options.add_argument("--cells", type=int, default=200)
    options.add_argument("--seconds", type=float, default=20.0, help="of each part")
    return measured(options, arguments, 1, _measure)


async def _measure(options: argparse.Namespace) -> Told:
    told, names = Told(), itertools.count()
    async with site(options.cells) as place:
        for _ in range(options.rounds):
            most = await _closed(place, names, options.seconds, told, "as many as are borne")
            await _open(place, names, TIMES * most, options.seconds, told)
            afterwards_s = min(AFTERWARDS_S, options.seconds)
            for when in ("just after", f"{afterwards_s:.0f} s later"):
                await _closed(place, names, afterwards_s, told, when)
            wrong = (await place.simulation("GET", "/v1/simulation")).expect(200).json()["overcommitted"]
            told.add("cells over-committed", len(wrong))
    return told


async def _closed(place: Site, names: itertools.count[int], seconds: float, told: Told, name: str) -> float:
    """Some clients, each of which waits for its answer. Returns LRPs a second."""

    async def desire() -> None:
        definition = lrp(f"over-{next(names):07d}", SLEEP, memory_mb=MEMORY_MB)
        (await place.request("POST", "/v1/desired_lrps", definition, **BUDGET)).expect(201)

    before, began_s = place.cpu_s(), time.perf_counter()
    taken = await asyncio.gather(*(asked_for(seconds, 0.0, desire) for _ in range(CLIENTS)))
    milliseconds = [one for each in taken for one in each]
    rate = len(milliseconds) / (time.perf_counter() - began_s)
    _cpu(told, name, before, place.cpu_s(), len(milliseconds))
    told.add(f"{name}: done, a second", rate)
    percentiles(told, name, milliseconds)
    return rate


def _cpu(told: Told, name: str, before: Mapping[str, float], after: Mapping[str, float], done: int) -> None:
    """Processor time of each process for each LRP that was done, refusals included. Clients, and whoever else is on the
    machine, have the same processors: of two figures a second this tells which part is the BBS's doing."""
    for process in before:
        told.add(f"{name}: {process}, CPU ms for each done", 1000 * (after[process] - before[process]) / max(1, done))


async def _open(place: Site, names: itertools.count[int], rate: float, seconds: float, told: Told) -> None:
    """Requests come at this rate whatever becomes of those before."""
    done: list[float] = []
    refused: list[float] = []
    otherwise = unexplained = 0

    async def desire() -> None:
        nonlocal otherwise, unexplained
        began_s = time.perf_counter()
        definition = lrp(f"over-{next(names):07d}", SLEEP, memory_mb=MEMORY_MB)
        answer = await place.request("POST", "/v1/desired_lrps", definition)
        milliseconds = (time.perf_counter() - began_s) * 1000
        if answer.status == 201:
            done.append(milliseconds)
        elif answer.status in (429, 503):
            refused.append(milliseconds)
            unexplained += "Retry-After" not in answer.headers
        else:
            otherwise += 1

    before, began_s = place.cpu_s(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began_s + number / rate - time.perf_counter()))
            group.create_task(desire())
        offered_s = time.perf_counter() - began_s
        within = len(done)
    _cpu(told, "overload", before, place.cpu_s(), len(done))
    told.add("overload: done, a second", within / offered_s)
    told.add("overload: refused, a second", len(refused) / offered_s)
    if len(done) > 1:
        percentiles(told, "overload: done", done)
    if len(refused) > 1:
        percentiles(told, "overload: refused", refused)
    told.add("overload: refused without Retry-After", unexplained)
    told.add("overload: failed otherwise", otherwise)
