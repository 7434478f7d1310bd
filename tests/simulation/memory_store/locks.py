"""Row locks as Postgres has them: held to the end of a transaction, exclusive or shared, with deadlocks found."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable

from attrs import define, field

from bbs.store.postgres_errors import RETRY_AFTER_S, Collision
from diego_py.errors import DatabaseConflict

LOCK_TIMEOUT_S = 2.0


@define(eq=False)
class Holder:
    """A transaction as the locks know it."""

    op: str
    held: dict[Hashable, Lock] = field(factory=dict)
    waits_for: Lock | None = None


@define(eq=False)
class Lock:
    """Who holds one row, and who waits for it, in order."""

    shared: bool = False
    holders: list[Holder] = field(factory=list)
    waiting: list[tuple[Holder, bool, asyncio.Future[None]]] = field(factory=list)

    def lets_in(self, holder: Holder, shared: bool) -> bool:
        if not self.holders or self.holders == [holder]:
            return True
        return shared and self.shared

    def is_enough(self, holder: Holder, shared: bool) -> bool:
        """Whether the holder has it already."""
        return holder in self.holders and (shared or not self.shared)

    def give(self, holder: Holder, shared: bool) -> None:
        self.shared = shared
        if holder not in self.holders:
            self.holders.append(holder)


@define
class Locks:
    """All locks of a database, by row."""

    _locks: dict[Hashable, Lock] = field(factory=dict, init=False)

    @property
    def waiters(self) -> int:
        """How many transactions wait for a lock."""
        return sum(len(lock.waiting) for lock in self._locks.values())

    async def take(self, holder: Holder, row: Hashable, shared: bool = False) -> None:
        """Hold a row from now on. Raises Collision for a deadlock, DatabaseConflict when it takes too long."""
        lock = self._locks.get(row)
        if lock is None:
            lock = self._locks[row] = Lock()
        if lock.is_enough(holder, shared):
            return
        if not lock.waiting and lock.lets_in(holder, shared):
            lock.give(holder, shared)
            holder.held[row] = lock
            return
        if _waits_for(lock.holders, holder):
            raise Collision(f"{holder.op}: other transactions came first", retry_after_s=RETRY_AFTER_S)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (holder, shared, turn)
        lock.waiting.append(entry)
        holder.waits_for = lock
        try:
            async with asyncio.timeout(LOCK_TIMEOUT_S) as scope:
                await turn
        except TimeoutError:
            if not scope.expired():
                raise
            told = f"{holder.op}: another transaction keeps a row locked"
            raise DatabaseConflict(told, retry_after_s=RETRY_AFTER_S) from None
        finally:
            holder.waits_for = None
            if entry in lock.waiting:
                lock.waiting.remove(entry)
                self._let_in(row, lock)

    def release(self, holder: Holder) -> None:
        """The end of a transaction, also of one whose process died while it waited."""
        held, holder.held = holder.held, {}
        if holder.waits_for is not None:
            holder.waits_for.waiting = [entry for entry in holder.waits_for.waiting if entry[0] is not holder]
        for row, lock in held.items():
            lock.holders.remove(holder)
            self._let_in(row, lock)

    def _let_in(self, row: Hashable, lock: Lock) -> None:
        while lock.waiting:
            holder, shared, turn = lock.waiting[0]
            if not lock.lets_in(holder, shared):
                return
            lock.waiting.pop(0)
            if not turn.done():
                lock.give(holder, shared)
                holder.held[row] = lock
                turn.set_result(None)
        if not lock.holders and not lock.waiting:
            self._locks.pop(row, None)


def _waits_for(holders: Iterable[Holder], seeker: Holder) -> bool:
    """Whether one of them waits, directly or through others, for what the seeker holds."""
    unseen = [holder for holder in holders if holder is not seeker]
    seen: set[Holder] = set()
    while unseen:
        holder = unseen.pop()
        if holder in seen or holder.waits_for is None:
            continue
        seen.add(holder)
        if seeker in holder.waits_for.holders:
            return True
        unseen += holder.waits_for.holders
    return False
