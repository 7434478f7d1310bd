"""Seeded workloads: what comes and goes, on which cells, until something is refused."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import count

from attrs import frozen

from bbs.auction.cell_view import CellView, Demand, Room
from diego_py.models.identifiers import CellId, ProcessGuid
from scripts.benchmarks.auctions.fleets import PROVIDERS, ROOTFS

LARGE, SMALL = Room(65_536, 262_144, 250), Room(16_384, 65_536, 250)
CELLS = 60
BATCH = 40
"""LRPs that come at once in a burst."""

Step = list[Demand] | ProcessGuid
"""A batch that comes, or an LRP that goes."""


@frozen
class Workload:
    name: str
    about: str
    cells: Callable[[], list[CellView]]
    steps: Callable[[random.Random], Iterator[Step]]


def _cells(zones: str = "abc" * (CELLS // 3), small_every: int = 0, ssd_every: int = 0) -> list[CellView]:
    views = []
    for number, zone in enumerate(zones):
        capacity = SMALL if small_every and number % small_every == 0 else LARGE
        ssd = frozenset({"ssd"}) if ssd_every and number % ssd_every == 0 else frozenset[str]()
        cell_id = CellId(f"cell-{number:03}")
        views.append(CellView(cell_id, zone, capacity, capacity, PROVIDERS, optional_placement_tags=ssd))
    return views


def _lrp(number: int, instances: int, memory_mb: int, disk_mb: int, tags: frozenset[str] = frozenset()) -> list[Demand]:
    guid, need = ProcessGuid(f"lrp-{number}"), Room(memory_mb, disk_mb, 1)
    return [Demand(guid, index, ROOTFS, need, placement_tags=tags) for index in range(instances)]


def _even(rng: random.Random) -> Iterator[Step]:
    for number in count():
        yield _lrp(number, rng.randint(1, 4), rng.choice((256, 512)), 1024)


def _mixed_lrp(rng: random.Random, number: int) -> list[Demand]:
    """Many small ones, few that need an eighth of a large cell; disk does not go with memory."""
    memory_mb = rng.choices((64, 128, 256, 512, 1024, 2048, 4096, 8192), (8, 12, 20, 24, 18, 10, 5, 3))[0]
    return _lrp(number, rng.randint(1, 10), memory_mb, rng.choice((256, 1024, 2048, 8192)))


def _mixed(rng: random.Random) -> Iterator[Step]:
    for number in count():
        yield _mixed_lrp(rng, number)


def _burst(rng: random.Random) -> Iterator[Step]:
    for number in count(step=BATCH):
        yield [demand for one in range(BATCH) for demand in _mixed_lrp(rng, number + one)]


def _churn(rng: random.Random) -> Iterator[Step]:
    """Half as many go as come, for long; then only comes."""
    there: list[ProcessGuid] = []
    for number in count():
        batch = _mixed_lrp(rng, number)
        there.append(batch[0].process_guid)
        yield batch
        if number < 1_200 and number % 2 and len(there) > 200:
            yield there.pop(rng.randrange(len(there)))


def _large(rng: random.Random) -> Iterator[Step]:
    for number in count():
        yield _lrp(number, rng.randint(50, 200), rng.choice((256, 512, 1024)), 1024)


def _tagged(rng: random.Random) -> Iterator[Step]:
    """One LRP in seven may run only on the fifth of the cells that have the tag."""
    for number in count():
        tags = frozenset({"ssd"}) if number % 7 == 0 else frozenset[str]()
        yield _lrp(number, rng.randint(1, 6), rng.choice((256, 512, 1024, 2048)), 1024, tags)


UNEVEN = "a" * 36 + "b" * 15 + "c" * 9
WORKLOADS = (
    Workload("even", "one to four instances of 256 or 512 MB", _cells, _even),
    Workload("mixed", "one to ten instances of 64 MB to 8 GB, and 256 MB to 8 GB of disk", _cells, _mixed),
    Workload("two sizes", "the same; every third cell has a quarter", lambda: _cells(small_every=3), _mixed),
    Workload("uneven zones", "the same; zones of 36, 15 and 9 cells", lambda: _cells(zones=UNEVEN), _mixed),
    Workload("burst", f"the same; {BATCH} LRPs come at once, while all of them start", _cells, _burst),
    Workload("churn", "the same; one goes for every two that come, for 1,200 LRPs", _cells, _churn),
    Workload("large LRPs", "50 to 200 instances of 256 MB to 1 GB", _cells, _large),
    Workload("tags", "one LRP in seven asks for a tag that every fifth cell has", lambda: _cells(ssd_every=5), _tagged),
)
