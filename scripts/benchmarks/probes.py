"""What the benchmarks on simulated cells share: filling a site, asking it again and again, and telling the figures."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from statistics import quantiles

from attrs import define, field

from scripts.benchmarks import machine
from scripts.benchmarks.api import lrp
from scripts.benchmarks.figures import Spread, table
from scripts.benchmarks.site import Site

SLEEP = ("/bin/sleep", "1000")
MEMORY_MB = 16
EACH = 100
"""Instances of an LRP."""
BUDGET = {"X-Budget-Ms": "600000"}


@define
class Told:
    """Figures by name, each measured several times."""

    values: dict[str, list[float]] = field(factory=dict)

    def add(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(value)

    def text(self) -> str:
        spreads = {name: Spread.of(values) for name, values in self.values.items()}
        rows = [
            [name, f"{one.median:.2f}", f"{one.least:.2f} - {one.greatest:.2f}", str(one.count)]
            for name, one in spreads.items()
        ]
        return table(["what", "median", "min - max", "n"], rows)

    def show(self, options: argparse.Namespace) -> None:
        """Print them, and keep them where that was asked for."""
        asked = {name: str(value) for name, value in vars(options).items() if name != "json"}
        facts = machine.facts_of_any() | asked
        print("\n".join(f"{name}: {fact}" for name, fact in facts.items()), end="\n\n")
        print(self.text())
        if options.json:
            options.json.write_text(json.dumps({"facts": facts, "figures": self.values}, indent=2))


def parser(name: str, about: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog=f"bench {name}", description=about)
    made.add_argument("--json", type=Path, help="keep the figures in this file")
    return made


def measured(
    options: argparse.ArgumentParser,
    arguments: Sequence[str],
    rounds: int,
    measure: Callable[[argparse.Namespace], Awaitable[Told]],
) -> int:
    """Measure what is asked for, in so many rounds unless another number is asked for, and show it. Returns the status
    to exit with."""
    options.add_argument("--rounds", type=int, default=rounds)
    asked = options.parse_args(arguments)

    async def whole() -> Told:
        return await measure(asked)

    asyncio.run(whole()).show(asked)
    return 0


async def fill(place: Site, instances: int, clients: int) -> None:
    """So many instances, a hundred an LRP. Raises RuntimeError for what is not 201."""
    numbers = iter(range(max(1, instances // EACH)))

    async def client() -> None:
        for number in numbers:
            definition = lrp(f"fill-{number:06d}", SLEEP, instances=min(EACH, instances), memory_mb=MEMORY_MB)
            (await place.request("POST", "/v1/desired_lrps", definition, **BUDGET)).expect(201)

    await asyncio.gather(*(client() for _ in range(clients)))


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds that it took."""
    began_s = time.perf_counter()
    await work()
    return (time.perf_counter() - began_s) * 1000


def percentiles(told: Told, name: str, milliseconds: Sequence[float]) -> None:
    """Median and 99th percentile of what was measured in one round."""
    cuts = quantiles(milliseconds, n=100)
    told.add(f"{name}, p50 ms", cuts[49])
    told.add(f"{name}, p99 ms", cuts[98])


def cores(told: Told, before: Mapping[str, float], after: Mapping[str, float], seconds: float) -> None:
    """Of each kind of process, which part of one processor it used."""
    for name in before:
        told.add(f"{name}, % of a processor", 100 * (after[name] - before[name]) / seconds)


async def asked_for(seconds: float, pause_s: float, work: Callable[[], Awaitable[object]]) -> list[float]:
    """Ask again and again for so long, one after another; milliseconds of each."""
    taken: list[float] = []
    until_s = time.perf_counter() + seconds
    for _ in itertools.count():
        if time.perf_counter() >= until_s:
            return taken
        taken.append(await timed(work))
        await asyncio.sleep(pause_s)
    return taken
