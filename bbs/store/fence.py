"""What only the convergence leader may do: its epoch is held until the end of the transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from bbs.store.transaction import Store, Transaction
from diego_py.call import Call
from diego_py.errors import NotLeader

T = TypeVar("T")


async def run_fenced(
    store: Store, call: Call, op: str, work: Callable[[Transaction], Awaitable[T]], epoch: int | None
) -> T:
    """`work` in one transaction; with an epoch, only if that one leads. Raises NotLeader."""

    async def fenced(tx: Transaction) -> T:
        if epoch is not None:
            await fence(tx, epoch)
        return await work(tx)

    return await store.run(call, op, fenced)


async def refusals(tx: Transaction, epochs: Sequence[int | None]) -> list[NotLeader | None]:
    """The same for changes that are made together, some of them by no leader (None): what each is refused with."""
    if all(epoch is None for epoch in epochs):
        return [None] * len(epochs)
    present = await tx.leader.hold_epoch()
    return [None if epoch in (None, present) else _not_leader(epoch, present) for epoch in epochs]


async def fence(tx: Transaction, epoch: int) -> None:
    """Let this transaction go on only if `epoch` leads, and let no takeover happen before it ends. Raises NotLeader."""
    present = await tx.leader.hold_epoch()
    if present != epoch:
        raise _not_leader(epoch, present)


def _not_leader(epoch: int | None, present: int) -> NotLeader:
    return NotLeader(f"act as leader of epoch {epoch}: the epoch is {present}")
