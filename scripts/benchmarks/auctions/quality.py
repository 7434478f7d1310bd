"""How well placements are: each workload by each placer, until the first refusal, and the figures beside each other."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
from attrs import asdict, frozen

from scripts.benchmarks.auctions.bars import bars
from scripts.benchmarks.auctions.placers import PLACERS, State
from scripts.benchmarks.auctions.workloads import WORKLOADS, Workload
from scripts.benchmarks.figures import Spread, table

SEEDS = (1, 2, 3)
LOOK_AT_FILL = 0.6
"""Share of all memory that is used when the state is looked at; the rest is looked at when the first is refused,
and all of it when that comes before."""
TYPICAL = np.array([512, 1024, 1])
"""Room on a cell that cannot take such an instance is stranded."""
PICTURES = Path(__file__).resolve().parents[3] / "docs" / "auction"

MEASURES = {
    "load_sd": "standard deviation of the load of cells, in points, at 60 % (less is better)",
    "zone_gap": "LRPs whose zones differ by more than one instance, % (less is better)",
    "crowded": "instances that needlessly share their cell with one of the same LRP, % (less is better)",
    "full": "how full the scarcest resource is at the first refusal, % (more is better)",
    "stranded": "memory free at the first refusal where no 512 MB instance fits, % of all (less is better)",
}


@frozen
class Result:
    """Of one workload, seed and placer; everything in percent."""

    load_sd: float
    zone_gap: float
    crowded: float
    full: float
    stranded: float


def compare() -> tuple[str, dict[str, Any]]:
    """The tables, and every figure; draws the pictures of docs/auction.md on the way."""
    results: dict[str, dict[str, list[Result]]] = {}
    for workload in WORKLOADS:
        for name in PLACERS:
            found = [_run(workload, name, seed) for seed in SEEDS]
            results.setdefault(workload.name, {})[name] = found
    PICTURES.mkdir(exist_ok=True)
    parts = [table(["workload", "what comes"], [[each.name, each.about] for each in WORKLOADS])]
    for measure, title in MEASURES.items():
        spreads = {
            workload: {name: Spread.of([getattr(one, measure) for one in found]) for name, found in by_placer.items()}
            for workload, by_placer in results.items()
        }
        rows = [[workload, *(_told(spread) for spread in of.values())] for workload, of in spreads.items()]
        parts.append(f"**{title[0].upper()}{title[1:]}**\n\n" + table(["workload", *PLACERS], rows))
        medians = {workload: {name: one.median for name, one in of.items()} for workload, of in spreads.items()}
        (PICTURES / f"{measure}.svg").write_text(bars(title, medians))
    document = {w: {p: [asdict(one) for one in found] for p, found in of.items()} for w, of in results.items()}
    return "\n\n".join(parts), document


def _run(workload: Workload, name: str, seed: int) -> Result:
    placer = PLACERS[name](State(workload.cells()))
    state, early = placer.state, None
    for step in workload.steps(random.Random(seed)):
        if isinstance(step, str):
            if step in state.instances:
                placer.settle(state.forget(step))
            continue
        refused = placer.place(step)
        if refused:
            break
        placer.settle(sorted({cell for demand in step for cell in state.instances[demand.process_guid]}))
        if early is None and _fill(state)[0] >= LOOK_AT_FILL:
            early = _load_sd(state)
    early = _load_sd(state) if early is None else early
    return Result(early, _zone_gap(state), _crowded(state), 100 * float(_fill(state).max()), _stranded(state))


def _fill(state: State) -> np.ndarray:
    return np.asarray(1 - state.available.sum(axis=0) / state.capacity.sum(axis=0))


def _load_sd(state: State) -> float:
    return 100 * float((1 - state.available[:, 0] / state.capacity[:, 0]).std())


def _zone_gap(state: State) -> float:
    """Of LRPs with more than one instance."""
    gaps = []
    for counts in state.instances.values():
        if counts.total() > 1:
            cells = list(counts)
            by_zone = np.bincount(state.zone[cells], [counts[cell] for cell in cells], minlength=state.zone.max() + 1)
            gaps.append(by_zone.max() - by_zone.min() > 1)
    return 100 * float(np.mean(gaps))


def _crowded(state: State) -> float:
    """More than the fewest that one cell must have when all cells take a share."""
    extra = total = 0
    for counts in state.instances.values():
        least = -(-counts.total() // len(state.cells))
        extra += sum(max(0, count - least) for count in counts.values())
        total += counts.total()
    return 100 * extra / total


def _stranded(state: State) -> float:
    stuck = (state.available < TYPICAL).any(axis=1)
    return 100 * float(state.available[stuck, 0].sum() / state.capacity[:, 0].sum())


def _told(spread: Spread) -> str:
    return f"{spread.median:.1f} ({spread.least:.1f} - {spread.greatest:.1f})"
