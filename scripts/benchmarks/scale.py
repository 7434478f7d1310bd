"""How many instances a second the BBS and its Postgres bring up on simulated cells, what each costs, and the latency of
single requests. RUNNING takes no time and no processor at such a cell but the rep's own: all the cost is ours."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any

import msgspec
from attrs import asdict, frozen

from scripts.benchmarks import machine
from scripts.benchmarks.api import lrp
from scripts.benchmarks.figures import table
from scripts.benchmarks.site import Site, everything, site

SLEEP = ("/bin/sleep", "1000")
MEMORY_MB = 16
REFUSED = 503
PAUSE_S = 0.2
DEFAULT_SIZES = "1000,10000"
BUDGET_MS = "600000"


@frozen
class Filled:
    """So many instances, asked for as fast as the BBS takes it."""

    instances: int
    seconds: float
    cpu_ms: dict[str, float]
    """Of each kind of process, for each instance."""
    bbs_mib: float
    failed: int
    refused: int
    """Requests that were told to come again, and did."""
    checks: tuple[str, ...]
    """What is wrong with the result; nothing."""


@frozen
class Singles:
    """LRPs of one instance, one after another at each client."""

    requests: int
    a_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: dict[str, float]
    failed: int


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench scale", description=__doc__)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--lrps", type=int, default=0, help="LRPs of each size; 0: as many as give 100 instances each")
    parser.add_argument("--instances", default=DEFAULT_SIZES, help=f"sizes, one after another [{DEFAULT_SIZES}]")
    parser.add_argument("--clients", type=int, default=16, help="requests under way at once")
    parser.add_argument("--singles", type=int, default=500, help="requests for one instance each, after the last size")
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    options = parser.parse_args(arguments)
    sizes = [int(size) for size in options.instances.split(",")]
    filled, singles = asyncio.run(_measure(options, sizes))
    facts = machine.facts_of_any() | {"cells": str(options.cells), "clients": str(options.clients)}
    print("\n".join(f"{name}: {fact}" for name, fact in facts.items()), end="\n\n")
    print(_table(filled), end="\n\n")
    print(_singles_table(singles))
    problems = [problem for each in filled for problem in each.checks]
    print("", *(problems or ["no cell is over-committed, zones are even, all answered RUNNING"]), sep="\n")
    if options.json:
        told = {"facts": facts, "filled": [asdict(each) for each in filled], "singles": asdict(singles)}
        options.json.write_text(json.dumps(told, indent=2))
    return 1 if problems else 0


async def _measure(options: argparse.Namespace, sizes: Sequence[int]) -> tuple[list[Filled], Singles]:
    """Each size on an installation of its own, so that each begins empty."""
    filled = []
    for size in sizes:
        async with site(options.cells, {"in_flight_max": 4096}) as place:
            filled.append(await _fill(place, size, options.lrps or max(1, size // 100), options.clients))
            if size == sizes[-1]:
                singles = await _single(place, options.singles, options.clients)
    return filled, singles


async def _fill(place: Site, size: int, lrps: int, clients: int) -> Filled:
    each = max(1, size // lrps)
    numbers = iter(range(lrps))
    failed: list[str] = []
    refused = 0

    async def client() -> None:
        nonlocal refused
        for number in numbers:
            definition = lrp(f"scale-{number:06d}", SLEEP, instances=each, memory_mb=MEMORY_MB)
            while (answer := await _desire(place, definition)).status == REFUSED and "Retry-After" in answer.headers:
                if b"not_started" not in answer.body:
                    break
                refused += 1
                await asyncio.sleep(PAUSE_S)
            if answer.status != 201:
                failed.append(answer.body[:2000].decode(errors="replace"))

    before, began_s = place.cpu_s(), time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    seconds, after = time.perf_counter() - began_s, place.cpu_s()
    made = each * lrps
    return Filled(
        instances=made,
        seconds=seconds,
        cpu_ms={name: (after[name] - before[name]) * 1000 / made for name in after},
        bbs_mib=place.rss_mib("bbs"),
        failed=len(failed),
        refused=refused,
        checks=(*failed[:1], *await _wrong(place, made)),
    )


async def _desire(place: Site, definition: dict[str, Any]) -> Any:
    return await place.request("POST", "/v1/desired_lrps", definition, **{"X-Budget-Ms": BUDGET_MS})


class Row(msgspec.Struct):
    """What is looked at of a row."""

    process_guid: str
    state: str
    availability_zone: str


async def _wrong(place: Site, made: int) -> list[str]:
    """What the rows and the cells themselves say against the promise."""
    states: Counter[str] = Counter()
    zones: dict[str, Counter[str]] = defaultdict(Counter)
    async for rows in everything(place, "/v1/actual_lrps", Row):
        for row in rows:
            states[row.state] += 1
            zones[row.process_guid][row.availability_zone] += row.state == "RUNNING"
    wrong = []
    if states != {"RUNNING": made}:
        wrong.append(f"{made} instances were asked for, and there are {dict(states)}")
    for guid, counts in zones.items():
        if max(counts.values()) - min(counts.values()) > 1:
            wrong.append(f"{guid} is not even: {dict(counts)}")
    state = (await place.simulation("GET", "/v1/simulation")).expect(200).json()
    if state["overcommitted"]:
        wrong.append(f"over-committed: {state['overcommitted'][:5]}")
    return wrong


async def _single(place: Site, requests: int, clients: int) -> Singles:
    numbers, seconds, failed = iter(range(requests)), [0.0][:0], 0

    async def client() -> None:
        nonlocal failed
        for number in numbers:
            began_s = time.perf_counter()
            answer = await _desire(place, lrp(f"single-{number:06d}", SLEEP, memory_mb=MEMORY_MB))
            seconds.append(time.perf_counter() - began_s)
            failed += answer.status != 201

    before, began_s = place.cpu_s(), time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    took_s, after = time.perf_counter() - began_s, place.cpu_s()
    percentiles = quantiles(seconds, n=100)
    return Singles(
        requests=requests,
        a_second=requests / took_s,
        p50_ms=percentiles[49] * 1000,
        p99_ms=percentiles[98] * 1000,
        cpu_ms={name: (after[name] - before[name]) * 1000 / requests for name in after},
        failed=failed,
    )


def _table(filled: Sequence[Filled]) -> str:
    names = list(filled[0].cpu_ms)
    cpu = [f"{name}, CPU ms each" for name in names]
    head = ["instances", "seconds", "a second", *cpu, "BBS, MiB", "refused first"]
    rows = [
        [
            str(each.instances),
            f"{each.seconds:.1f}",
            f"{each.instances / each.seconds:.0f}",
            *(f"{each.cpu_ms[name]:.2f}" for name in names),
            f"{each.bbs_mib:.0f}",
            str(each.refused),
        ]
        for each in filled
    ]
    return table(head, rows)


def _singles_table(singles: Singles) -> str:
    cpu = [f"{name}, CPU ms" for name in singles.cpu_ms]
    head = ["requests for one instance", "a second", "p50 ms", "p99 ms", *cpu, "failed"]
    row = [
        str(singles.requests),
        f"{singles.a_second:.0f}",
        f"{singles.p50_ms:.1f}",
        f"{singles.p99_ms:.1f}",
        *(f"{ms:.2f}" for ms in singles.cpu_ms.values()),
        str(singles.failed),
    ]
    return table(head, [row])
