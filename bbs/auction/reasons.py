"""Why a demand goes where it goes, or nowhere: reckoned only when somebody asks, or is refused. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import IntEnum
from typing import Any

import numpy as np
from attrs import evolve, field, frozen
from numpy.typing import NDArray

from bbs.auction.cell_view import Bid, Demand
from bbs.auction.columns import Floats
from bbs.auction.fleet import Fleet
from bbs.auction.scoring import IMAGE_WEIGHT, SPREAD_WEIGHT, STARTING_WEIGHT, UNASKED_TAG_WEIGHT
from diego_py.models.identifiers import CellId

BIDS_SHOWN_MAX = 20
"""However many cells there are: the best, or the nearest misses. The others are counted."""
TRIED = "tried in this request; see its frames in the chain"


class _Verdict(IntEnum):
    """As numbers, for arrays."""

    fits = 0
    no_fit = 1
    rootfs = 2
    volume_drivers = 3
    placement_tags = 4
    privileged = 5
    disk_limit = 6
    draining = 7
    tried = 8
    absent = 9
    won = 10


@frozen
class Shortage:
    """A resource of which cells that may take a demand have too little."""

    cells: int
    need: int
    most: int
    """The most that any of them has free."""


@frozen
class Explanation:
    """What the auction says to one demand: how many cells for which verdict, and the bids that matter most."""

    demand: Demand
    cells: int
    verdicts: Mapping[str, int]
    short: Mapping[str, Shortage]
    bids: tuple[Bid, ...]
    """The winner, then cells that fit, then the nearest misses, then others; at most BIDS_SHOWN_MAX."""
    others: Mapping[str, str] = field(factory=dict)
    """For each verdict that is not about room: the detail of one cell with it."""

    def told(self) -> dict[str, Any]:
        """As failure documents and the dry run show it."""
        told: dict[str, Any] = {
            "need": self.demand.need.told(),
            "rootfs": self.demand.rootfs,
            "cells": self.cells,
            "verdicts": dict(self.verdicts),
        }
        if self.short:
            told["short"] = {
                name: {"cells": short.cells, "need": short.need, "most": short.most}
                for name, short in self.short.items()
            }
        return told | {"bids": [bid.told() for bid in self.bids]}

    def summary(self) -> str:
        """One line with the numbers that matter: what was needed, and the most that any cell has of what is short."""
        if self.short:
            told = ", ".join(
                f"{name} {short.need} needed, {short.most} at most free" for name, short in sorted(self.short.items())
            )
            lacking = self.verdicts["no_fit"]
            others = self.cells - lacking
            return f"{told} on {lacking} cell(s)" + (f"; {others} ruled out otherwise" if others else "")
        counts = sorted(self.verdicts.items())
        return "; ".join(f"{count} cell(s): {self.others.get(verdict, verdict)}" for verdict, count in counts)


def explain(fleet: Fleet, demand: Demand, tried: Collection[str] = (), won: CellId | None = None) -> Explanation:
    """What every cell says to a demand as things are; `won` is the cell that had the best bid, if it still fits."""
    scores, static = fleet.scores(demand, tried)
    fleet.disperse(demand, scores)
    verdicts = _verdicts(fleet, demand, tried)
    winner = fleet.slots.get(won) if won is not None else None
    if winner is not None and verdicts[winner] == _Verdict.fits:
        verdicts[winner] = _Verdict.won
    counts = np.bincount(verdicts, minlength=len(_Verdict))
    lacking = np.flatnonzero(verdicts == _Verdict.no_fit)
    short = {}
    for name, wanted, have in fleet.haves(demand):
        has = have[lacking]
        if (has < wanted).any():
            short[name] = Shortage(int((has < wanted).sum()), wanted, max(0, int(has.max())))
    others = {}
    for verdict in _Verdict:
        if not _Verdict.rootfs <= verdict <= _Verdict.tried:
            continue
        if counts[verdict]:
            others[verdict.name] = _detail(fleet, demand, verdict, int(np.argmax(verdicts == verdict)))
    shown = _nearest(fleet, demand, verdicts, scores)
    return Explanation(
        demand=demand,
        cells=len(fleet.slots),
        verdicts={
            verdict.name: int(counts[verdict])
            for verdict in sorted(_Verdict, key=lambda verdict: verdict.name)
            if counts[verdict] and verdict is not _Verdict.absent
        },
        short=short,
        bids=tuple(_bid(fleet, demand, _Verdict(verdicts[slot]), slot, static) for slot in shown),
        others=others,
    )


def nearest_misses(fleet: Fleet, demand: Demand, tried: Collection[str], count: int) -> list[CellId]:
    """Cells that do not take a demand now and might at another time, at most `count`, what lacks least first."""
    scores, _ = fleet.scores(demand, tried)
    verdicts = _verdicts(fleet, demand, tried)
    verdicts[verdicts == _Verdict.tried] = _Verdict.absent
    for _, wanted, capacity in fleet.capacities(demand):
        verdicts[(verdicts == _Verdict.no_fit) & (capacity < wanted)] = _Verdict.absent
    misses = [slot for slot in _nearest(fleet, demand, verdicts, scores, count) if verdicts[slot] != _Verdict.fits]
    return [cell_id for slot in misses if (cell_id := fleet.ids[slot]) is not None]


def _verdicts(fleet: Fleet, demand: Demand, tried: Collection[str]) -> NDArray[np.int64]:
    """By slot. The order of filters is: tried, what the kind of cell decides, then room."""
    of_kind = np.array([_verdict_of_kind(fleet, kind, demand) for kind in range(len(fleet.kinds.values))])
    verdicts = of_kind.take(fleet.columns.kind.array[: fleet.count])
    fits = verdicts == _Verdict.fits
    for _, wanted, have in fleet.haves(demand):
        verdicts[fits & (have < wanted)] = _Verdict.no_fit
    for cell_id in tried:
        slot = fleet.slots.get(CellId(cell_id))
        if slot is not None:
            verdicts[slot] = _Verdict.tried
    return verdicts


def _verdict_of_kind(fleet: Fleet, number: int, demand: Demand) -> int:
    kind = fleet.kinds.values[number]
    if kind is None:
        return _Verdict.absent
    refusal = kind.refusal(demand)
    return _Verdict.fits if refusal is None else _Verdict[refusal[0]]


def _nearest(
    fleet: Fleet, demand: Demand, verdicts: NDArray[np.int64], scores: Floats, count: int = BIDS_SHOWN_MAX
) -> list[int]:
    """Slots of the winner, of the best that fit, of what lacks least, then of the rest, at most `count`."""
    group = np.choose(np.minimum(verdicts, _Verdict.rootfs), [1, 2, 3])
    group[verdicts == _Verdict.won] = 0
    zones = fleet.in_zone(demand)
    crowd = zones if zones is not None else np.zeros(fleet.count)
    missing = np.zeros(fleet.count)
    for _, wanted, have in fleet.haves(demand):
        missing += np.maximum(0, wanted - np.maximum(0, have)) / max(1, wanted)
    fits = group <= 1
    first, second = np.where(fits, crowd, missing), np.where(fits, scores, 0.0)
    rank = fleet.columns.rank.array[: fleet.count]
    there = np.flatnonzero(verdicts != _Verdict.absent)
    order = np.lexsort((rank[there], second[there], first[there], group[there]))
    return [int(slot) for slot in there[order[:count]]]


def _bid(fleet: Fleet, demand: Demand, verdict: _Verdict, slot: int, static: Floats) -> Bid:
    cell_id = fleet.ids[slot]
    assert cell_id is not None
    zone = fleet.columns.zone.at[slot]
    have = fleet.available(slot)
    bid = Bid(cell_id, str(fleet.zones.values[zone]), verdict.name, have)
    if verdict in (_Verdict.fits, _Verdict.won):
        parts = _parts(fleet, demand, slot, float(static[slot]))
        return evolve(bid, parts=parts, score=sum(parts.values()), in_zone=fleet.spread(demand).by_zone.get(zone, 0))
    if verdict is _Verdict.no_fit:
        return evolve(bid, lacks=have.lacks(demand.need))
    return evolve(bid, detail=_detail(fleet, demand, verdict, slot))


def _parts(fleet: Fleet, demand: Demand, slot: int, static: float) -> dict[str, float]:
    """The terms of the score of one cell."""
    columns = fleet.columns
    kind = fleet.kinds.values[columns.kind.at[slot]]
    assert kind is not None
    unasked = kind.unasked_tags(demand) * UNASKED_TAG_WEIGHT
    packing = columns.packing.at[slot]
    starting = columns.starting.at[slot] * STARTING_WEIGHT
    holders = fleet.images.of(demand.rootfs)
    image = IMAGE_WEIGHT if holders and slot not in holders else 0.0
    load = columns.base.at[slot] - starting + static - unasked - packing - image
    parts = {"load": load, "starting": starting, "unasked_tags": unasked, "image": image}
    if fleet.rush:
        parts["rush"] = columns.rushed.at[slot] - columns.base.at[slot]
    if fleet.bin_pack_weight:
        parts["packing"] = packing
    if demand.task:
        return {**parts, "tasks": columns.tasks.at[slot] * SPREAD_WEIGHT}
    return {**parts, "same_process": fleet.spread(demand).by_slot.get(slot, 0) * SPREAD_WEIGHT}


def _detail(fleet: Fleet, demand: Demand, verdict: _Verdict, slot: int) -> str:
    if verdict is _Verdict.tried:
        return TRIED
    kind = fleet.kinds.values[fleet.columns.kind.at[slot]]
    refusal = kind.refusal(demand) if kind is not None else None
    return refusal[1] if refusal is not None else ""
