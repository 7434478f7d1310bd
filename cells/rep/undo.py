"""What starts have in common when they fail: time kept back to undo them, and what is told of what is left."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from diego_py.call import Budget, Call
from diego_py.errors import DiegoError, Outcome

UNDO_RESERVE_SHARE = 0.2
UNDO_RESERVE_MS_MIN = 150.0
UNDO_RESERVE_MS_MAX = 1000.0
"""Kept back of a budget, so that what was begun can be undone and said before the caller stops waiting. What has less
than the least of it is not begun."""


def with_time_to_undo(call: Call) -> Call:
    """The call with a budget that ends a little earlier."""
    reserve_ms = min(UNDO_RESERVE_MS_MAX, max(UNDO_RESERVE_MS_MIN, call.remaining_ms() * UNDO_RESERVE_SHARE))
    return evolve(call, budget=Budget(call.budget.deadline_s - reserve_ms / 1000, call.budget.total_ms))


def tell_outcome(failure: DiegoError, handle: str, left: Sequence[DiegoError], undone: Outcome) -> None:
    """Write into the failure what is true on the cell now: everything is undone, or what is not."""
    if left:
        tell_leftovers(failure, handle, left)
    else:
        failure.outcome = undone


def tell_ended(failure: DiegoError) -> None:
    """Write into the failure of what ran and ended, unless it says otherwise, that nothing of it is left.

    It is told when its container is gone.
    """
    if all(link.outcome is None for link in failure.links()):
        failure.outcome = Outcome.ROLLED_BACK


def tell_leftovers(failure: DiegoError, handle: str, left: Sequence[DiegoError]) -> None:
    """Write into the failure that not all of the container is gone, and why."""
    failure.outcome = Outcome.PARTIAL
    root = failure.root
    remaining = [{"handle": handle, "code": error.root.code, "detail": error.root.message} for error in left]
    root.evidence = {**(root.evidence or {}), "left": remaining}
