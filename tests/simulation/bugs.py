"""Bugs that can be put in: the test of the test. Each takes one rule out of the product."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any
from unittest.mock import patch

from attrs import evolve

from bbs import placement
from bbs.convergence.convergence import Convergence
from bbs.convergence.plan import Snapshot, _Planner
from bbs.convergence.reading import Reading
from bbs.store import attempts, fence, reconcile, report
from diego_py.errors import ClaimRefused
from diego_py.models.actual_lrp import ActualLRP
from tests.simulation.memory_store import cells
from tests.simulation.workload import DOMAIN

LATE_S = 0.2
"""Less than a report has time: that alone breaks nothing."""
Bug = Callable[[], AbstractContextManager[object]]


def claims_of_any_instance() -> AbstractContextManager[object]:
    """A claim is granted whatever instance the row waits for (R4)."""

    def offered(known: Any, item: Any, instance_guid: str) -> Any:
        changing = known.get((item.process_guid, item.index))
        return ClaimRefused("no row") if changing is None else changing.row

    return patch.object(attempts, "_offered", offered)


def leaders_for_ever() -> AbstractContextManager[object]:
    """Whoever led once acts as leader whenever he comes to it (I8)."""

    async def no_fence(tx: Any, epoch: int) -> None:
        """Lets everybody pass."""

    return patch.object(fence, "fence", no_fence)


def whatever_fails_is_a_crash() -> AbstractContextManager[object]:
    """A failure of the platform counts as one of the app's (I12)."""
    return patch.object(placement, "is_crash", lambda error: True)


def no_back_off() -> AbstractContextManager[object]:
    """What failed is tried again at once (I12)."""

    def now(self: _Planner, bucket: str, row: ActualLRP, reason: str) -> None:
        self._put(bucket, row, reason)

    return patch.object(_Planner, "_when_due", now)


def every_domain_is_fresh() -> AbstractContextManager[object]:
    """What is not desired is stopped, whether or not somebody vouches for what is desired (I18)."""
    return _misread(lambda snapshot: evolve(snapshot, fresh_domains=frozenset({DOMAIN})))


def could_not_list_is_empty() -> AbstractContextManager[object]:
    """Cells that could not be read are cells that are not there (I20)."""
    return _misread(lambda snapshot: evolve(snapshot, live_cells=frozenset(), may_lose_cells=True))


def reports_of_other_cells() -> AbstractContextManager[object]:
    """A report changes what it found a moment ago, whoever has that now (I11)."""

    def is_of(row: ActualLRP, instance: Any, cell_id: str) -> bool:
        return (row.process_guid, row.index) == (instance.process_guid, instance.index)

    async def late(tx: Any, differences: Any) -> None:
        await asyncio.sleep(LATE_S)

    patches = ExitStack()
    patches.enter_context(patch.object(reconcile, "_is_of", is_of))
    patches.enter_context(patch.object(report, "_lock", late))
    return patches


def heartbeats_whatever_is_wanted() -> AbstractContextManager[object]:
    """A heartbeat is taken although rows have changed since the cell's last report."""
    kept = cells._is_same

    def same(row: Any, beat: Any, fingerprint: Any) -> bool:
        return bool(kept(row, beat, row.settled))

    return patch.object(cells, "_is_same", same)


def _misread(change: Callable[[Snapshot], Snapshot]) -> AbstractContextManager[object]:
    read = Convergence._read

    async def misread(self: Convergence, call: Any) -> Reading:
        reading = await read(self, call)
        return evolve(reading, snapshot=change(reading.snapshot))

    return patch.object(Convergence, "_read", misread)


BUGS: dict[Bug, dict[str, float]] = {
    claims_of_any_instance: {},
    leaders_for_ever: {"leader_stalled": 0.5, "bbs_frozen": 0.1, "app_ends": 0.3, "cut_off": 0.03},
    whatever_fails_is_a_crash: {"create": 0.1},
    no_back_off: {"app_ends": 0.1, "create": 0.1},
    every_domain_is_fresh: {"restored": 0.1},
    could_not_list_is_empty: {},
    reports_of_other_cells: {"reply_lost": 0.3, "create": 0.2},
    heartbeats_whatever_is_wanted: {"cut_off": 0.1},
}
"""With the faults that bring each to light sooner."""
