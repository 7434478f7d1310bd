"""Why a cell is ruled out for a demand. Every refusal has a reason with its numbers. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from bbs.auction.cell_view import Bid, CellView, Demand

BIDS_SHOWN_MAX = 20


def ruled_out(cell: CellView, demand: Demand, tried: frozenset[str]) -> Bid | None:
    """The bid of a cell that cannot take the demand, None if it can.

    The order is Diego's filter order: rootfs, placement tags, then resources (auctionrunner/zone.go); privileged,
    which Diego does not ask about, is before the resources.
    """
    if cell.cell_id in tried:
        return Bid(cell.cell_id, "tried", cell.available, detail="tried in this request; see its frames in the chain")
    if cell.draining:
        return Bid(cell.cell_id, "draining", cell.available, detail="the cell is being emptied")
    scheme, _, name = demand.rootfs.partition(":")
    offered = cell.rootfs_providers.get(scheme)
    if offered is None or (offered and name not in offered):
        return Bid(cell.cell_id, "rootfs", cell.available, detail=f"does not offer {demand.rootfs[:200]}")
    if missing := cell.placement_tags - demand.placement_tags:
        told = ", ".join(sorted(missing))
        return Bid(cell.cell_id, "placement_tags", cell.available, detail=f"takes only work tagged {told}")
    if foreign := demand.placement_tags - cell.placement_tags - cell.optional_placement_tags:
        told = ", ".join(sorted(foreign))
        return Bid(cell.cell_id, "placement_tags", cell.available, detail=f"lacks the tags {told}")
    if demand.privileged and not cell.privileged:
        return Bid(cell.cell_id, "privileged", cell.available, detail="makes no privileged containers")
    if lacks := cell.available.lacks(demand.need):
        return Bid(cell.cell_id, "no_fit", cell.available, lacks=lacks)
    return None


def placement(demand: Demand, bids: Sequence[Bid]) -> dict[str, Any]:
    """The auction as a failure document and a dry run show it: need, a count by verdict, nearest bids first."""
    need = demand.need
    shown = sorted(bids, key=_nearness)[:BIDS_SHOWN_MAX]
    return {
        "need": {"memory_mb": need.memory_mb, "disk_mb": need.disk_mb, "containers": need.containers},
        "rootfs": demand.rootfs,
        "cells": len(bids),
        "verdicts": dict(Counter(bid.verdict for bid in bids)),
        "bids": [bid.told() for bid in shown],
    }


def summary(demand: Demand, bids: Sequence[Bid]) -> str:
    """One line with the numbers that matter: what was needed, and the most that any cell has of what is short."""
    short = [bid for bid in bids if bid.lacks]
    if short:
        names = sorted({name for bid in short for name in bid.lacks})
        most = {name: max(max(0, getattr(bid.have, name)) for bid in short) for name in names}
        told = ", ".join(f"{name} {getattr(demand.need, name)} needed, {most[name]} at most free" for name in names)
        others = len(bids) - len(short)
        return f"{told} on {len(short)} cell(s)" + (f"; {others} ruled out otherwise" if others else "")
    verdicts = Counter(bid.verdict for bid in bids)
    return "; ".join(f"{count} cell(s): {_sample(bids, verdict)}" for verdict, count in sorted(verdicts.items()))


def _sample(bids: Sequence[Bid], verdict: str) -> str:
    return next((bid.detail for bid in bids if bid.verdict == verdict and bid.detail), verdict)


def _nearness(bid: Bid) -> tuple[int, float]:
    """Winners and fits first, then what lacks least, then the rest."""
    if bid.score is not None:
        return (0 if bid.verdict == "won" else 1, bid.score)
    missing = sum((amounts["need"] - amounts["have"]) / max(1, amounts["need"]) for amounts in bid.lacks.values())
    return (2, missing) if bid.lacks else (3, 0.0)
