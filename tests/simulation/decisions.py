"""What convergence decided, seen where it is carried out: for which epoch, by which row, and whether it may.

Reliability: I8 and I18 to I20.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Final
from unittest.mock import patch

from attrs import frozen

from bbs.convergence.apply import Repairs
from bbs.convergence.convergence import Convergence
from bbs.convergence.plan import Plan
from bbs.convergence.reading import Reading
from bbs.lifecycle import Lifecycle
from bbs.store import fence
from bbs.succession import Succession
from diego_py.models.actual_lrp import ActualLRP
from tests.simulation.loop import PROCESS
from tests.simulation.processes import World

DECIDED: ContextVar[ActualLRP | None] = ContextVar("decided", default=None)
"""The row that the transaction under way was decided by."""
READ_AT: ContextVar[datetime] = ContextVar("read_at")
"""When a leader read what it decides by."""
BY_ROW: Final = {
    Lifecycle: {"lose": "lose_instance", "retry": "retry_instance"},
    Succession: {"suspect": "suspect_instance"},
}
"""Methods that act on a row as it was read, and what they call their transactions."""
OPS: Final = frozenset(op for methods in BY_ROW.values() for op in methods.values())


@frozen
class Decisions:
    """Has each fenced transaction say for which epoch and by which row it acts, and leaders dawdle before they act."""

    world: World

    @contextmanager
    def seen(self) -> Iterator[None]:
        """As long as a run lasts."""
        real, apply, faults = fence.run_fenced, Repairs.apply, self.world.faults

        async def told(store: Any, call: Any, op: str, work: Callable[[Any], Any], epoch: int | None) -> Any:
            async def work_for_epoch(tx: Any) -> Any:
                tx.core.epoch = epoch
                tx.core.decided = DECIDED.get() if op in OPS else None
                return await work(tx)

            return await real(store, call, op, work_for_epoch, epoch)

        async def apply_late(repairs: Repairs, plan: Plan, epoch: int) -> None:
            process = PROCESS.get()
            assert process is not None
            self._look_at(plan)
            await faults.before_repairs(process)
            await apply(repairs, plan, epoch)

        with ExitStack() as patches:
            for module in [
                module for name, module in sys.modules.items() if name.startswith("bbs.") and module is not fence
            ]:
                if getattr(module, "run_fenced", None) is real:
                    patches.enter_context(patch.object(module, "run_fenced", told))
            for owner, methods in BY_ROW.items():
                for name in methods:
                    patches.enter_context(patch.object(owner, name, _telling(getattr(owner, name))))
            patches.enter_context(patch.object(Repairs, "apply", apply_late))
            patches.enter_context(patch.object(Convergence, "_read", _dated(Convergence._read)))
            yield

    def _look_at(self, plan: Plan) -> None:
        """What nobody asked to end is surplus only where somebody vouches for what is desired."""
        domains, read_at = self.world.database.tables["domains"], READ_AT.get()
        for step in plan.stop:
            fresh = domains.get(step.row.domain)
            ended = fresh is None or (fresh.expires_at is not None and fresh.expires_at <= read_at)
            if ended and step.row.stop_asked_at is None:
                told = f"{step.row.process_guid}/{step.row.index} is to be stopped ({step.reason})"
                self.world.witness.fail(f"I18: {told}, and its domain is not fresh")


def _dated(read: Callable[..., Any]) -> Callable[..., Any]:
    async def dated(self: Any, call: Any) -> Reading:
        reading: Reading = await read(self, call)
        READ_AT.set(reading.snapshot.now)
        return reading

    return dated


def _telling(method: Callable[..., Any]) -> Callable[..., Any]:
    async def told(self: Any, call: Any, row: ActualLRP, *arguments: Any, **options: Any) -> Any:
        token = DECIDED.set(row)
        try:
            return await method(self, call, row, *arguments, **options)
        finally:
            DECIDED.reset(token)

    return told
