"""A hundred containers: one LRP of 100 instances over two cells, beside `runc run --detach`, eight at a time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from attrs import define, field

from scripts.benchmarks import machine
from scripts.benchmarks.api import Api, lrp
from scripts.benchmarks.bare_runc import BareRunc, Bundle
from scripts.benchmarks.figures import Figures
from scripts.benchmarks.prepared import Prepared

CONTAINERS = 100
AT_A_TIME = 8
MEMORY_MB = 16
SLEEP = ("/bin/sleep", "1000")


@define
class Scale:
    """Up and down, both ways."""

    api: Api
    runc: BareRunc
    prepared: Prepared
    figures: Figures = field(factory=Figures)
    _named: int = 0

    def round(self) -> None:
        self.figures.begin_round()
        kinds = [self.cascade, self.bare, self.docker]
        random.shuffle(kinds)
        for kind in kinds:
            kind()

    def cascade(self) -> None:
        self._named += 1
        guid = f"bench-scale-{self._named}"
        definition = lrp(guid, SLEEP, instances=CONTAINERS, memory_mb=MEMORY_MB)
        self._timed("cascade up", lambda: self.api.desire(definition).expect(201))
        busy_s = machine.busy_s()
        self.prepared.wait()
        self.figures.add("cascade, made ready again: CPU ms a container", _each_ms(busy_s))
        self._timed("cascade down", lambda: self.api.delete(guid).expect(200, 204))

    def bare(self) -> None:
        self._bare("runc", self.runc.confined_bundle)

    def docker(self) -> None:
        self._bare("runc, Docker's confinement", self.runc.docker_bundle)

    def _bare(self, name: str, made: Callable[[tuple[str, ...]], Bundle]) -> None:
        bundles = [made(SLEEP) for _ in range(CONTAINERS)]
        self._timed(f"{name} up", lambda: _side_by_side(self.runc.run_detached, bundles))
        self._timed(f"{name} down", lambda: _side_by_side(self.runc.remove, bundles))
        for bundle in bundles:
            self.runc.discard(bundle)

    def _timed(self, name: str, work: Callable[[], object]) -> None:
        """How many a second, and what one costs the machine (everything else that runs on it included)."""
        self.prepared.wait()
        machine.wait_for_idle()
        began_s, busy_s = time.perf_counter(), machine.busy_s()
        work()
        self.figures.add(f"{name}: containers a second", CONTAINERS / (time.perf_counter() - began_s))
        self.figures.add(f"{name}: CPU ms a container", _each_ms(busy_s))


def _each_ms(busy_s: float) -> float:
    """What the machine has worked since then, for each container."""
    return (machine.busy_s() - busy_s) * 1000 / CONTAINERS


def _side_by_side(work: Callable[[Bundle], float], bundles: Sequence[Bundle]) -> None:
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(work, bundles))
