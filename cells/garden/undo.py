"""What `create` leaves behind when it fails: nothing, or a container that says of itself that it is not wholly gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType

from attrs import frozen

from cells.garden.box import Box
from diego_py.call import Call
from diego_py.errors import DiegoError, Outcome


@frozen
class Undo:
    """Leaving `create` by an error: remove all that was made, and say in the error whether that worked."""

    box: Box
    demolish: Callable[[Call | None, Box], Awaitable[None]]

    async def __call__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        outcome = Outcome.ROLLED_BACK
        try:
            await self.demolish(None, self.box)
        except DiegoError as leftover:
            # Stays listed, so that destroy (or the next start) tries again.
            outcome = Outcome.PARTIAL
            self.box.complete = True
            if error is not None:
                error.add_note(f"undo failed: {leftover.message}")
        if isinstance(error, DiegoError) and error.outcome is None:
            error.outcome = outcome
