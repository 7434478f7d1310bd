"""What `create` leaves behind when it fails: nothing, or a container that says of itself that it is not wholly gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType

from attrs import frozen

from cells.garden.box import Box
from cells.garden.children import uninterrupted
from diego_py.call import Call
from diego_py.errors import BudgetSpent, DiegoError, Outcome


@asynccontextmanager
async def in_time(call: Call, handle: str, boxes: Mapping[str, Box]) -> AsyncIterator[None]:
    """Bound a creation by its caller's time. Raises BudgetSpent, which says whether anything of it is left.

    Its cause is what had failed before, if that is what was being undone: nobody should read only that it took long.
    """
    try:
        async with call.within_budget("create container", Outcome.ROLLED_BACK):
            yield
    except BudgetSpent as spent:
        if spent.outcome is Outcome.ROLLED_BACK and handle in boxes:
            spent.outcome = Outcome.PARTIAL
        raise spent from _failed_before(spent) or spent.__cause__


def _failed_before(spent: BudgetSpent) -> DiegoError | None:
    """What `Undo` was undoing when it was cancelled."""
    link = spent.__cause__
    while link is not None and not isinstance(link, DiegoError):
        link = link.__cause__
    return link


@frozen
class Undo:
    """Leaving `create` by an error: remove all that was made, and say in the error whether that worked."""

    call: Call
    box: Box
    demolish: Callable[[Call | None, Box], Awaitable[None]]

    async def __call__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # To its end, also when the caller's time is up meanwhile: nobody else would know of what is left.
        try:
            leftover = await uninterrupted(self._undo())
        except asyncio.CancelledError as over:
            raise over from error
        if leftover is not None and error is not None:
            error.add_note(f"undo failed: {leftover.message}")
        if isinstance(error, DiegoError) and error.outcome is None:
            error.outcome = Outcome.ROLLED_BACK if leftover is None else Outcome.PARTIAL

    async def _undo(self) -> DiegoError | None:
        # What a thread, or the runtime, is stuck in is waited for no longer than the caller can wait.
        call = self.call if self.box.threads.busy or self.box.runtime_silent else None
        try:
            await self.demolish(call, self.box)
        except DiegoError as leftover:
            self.box.complete = True  # Stays listed, so that destroy (or the next start) tries again.
            return leftover
        return None
