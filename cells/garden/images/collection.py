"""Which layers of the store have to go. Pure."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Sequence, Set

from attrs import frozen


@frozen
class StoredLayer:
    """One unpacked layer. A chain id names a layer together with all below it."""

    chain_id: str
    parent: str
    """Chain id of the layer below; empty for the lowest one."""
    diff_id: str
    disk_bytes: int
    entries: int
    last_used_s: float
    """Seconds since 1970."""


@frozen
class Removal:
    """One decision, and why."""

    chain_id: str
    disk_bytes: int
    reason: str


def chain_ids(diff_ids: Sequence[str]) -> tuple[str, ...]:
    """The chain id of each layer, 64 hexadecimal digits, lowest layer first, as the image specification defines it."""
    chain: list[str] = []
    for diff_id in diff_ids:
        if not chain:
            chain.append(diff_id.removeprefix("sha256:"))
        else:
            chain.append(hashlib.sha256(f"sha256:{chain[-1]} {diff_id}".encode()).hexdigest())
    return tuple(chain)


def with_parents(tops: Iterable[str], layers: Iterable[StoredLayer]) -> set[str]:
    """These layers and all below them, as far as they are stored."""
    parents = {layer.chain_id: layer.parent for layer in layers}
    found: set[str] = set()
    for top in tops:
        chain_id = top
        while chain_id and chain_id not in found:
            found.add(chain_id)
            chain_id = parents.get(chain_id, "")
    return found


def plan_gc(layers: Sequence[StoredLayer], in_use: Set[str], limit_bytes: int, why: str = "") -> tuple[Removal, ...]:
    """Removals that bring the store to `limit_bytes`, or as near as what is in use allows.

    Least recently used first, and never one that another stays upon. `in_use` needs to name the top ones only.
    """
    total = sum(layer.disk_bytes for layer in layers)
    kept = with_parents(in_use, layers)
    by_id = {layer.chain_id: layer for layer in layers}
    children = Counter(layer.parent for layer in layers if layer.parent)
    free = [(layer.last_used_s, layer.chain_id) for layer in layers if _may_go(layer, kept, children)]
    heapq.heapify(free)
    removals = []
    while total > limit_bytes and free:
        last_used_s, chain_id = heapq.heappop(free)
        layer = by_id[chain_id]
        reason = f"{why or f'store has {total} bytes of {limit_bytes}'}; not in use, last used at {last_used_s:.0f}"
        removals.append(Removal(chain_id, layer.disk_bytes, reason))
        total -= layer.disk_bytes
        children[layer.parent] -= 1
        parent = by_id.get(layer.parent)
        if parent is not None and _may_go(parent, kept, children):
            heapq.heappush(free, (parent.last_used_s, parent.chain_id))
    return tuple(removals)


def _may_go(layer: StoredLayer, kept: Set[str], children: Counter[str]) -> bool:
    return layer.chain_id not in kept and children[layer.chain_id] <= 0
