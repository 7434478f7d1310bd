"""Changes that are asked for while others are being made are made together: one transaction, few statements.

Who asks alone has a transaction of his own, at once. Who asks while one is under way waits for its end, and then shares
the next one with all who came meanwhile: the more is asked for, the less each costs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from attrs import define, field

from bbs.store.transaction import Store, Transaction
from diego_py.call import Call
from diego_py.errors import BudgetSpent, DatabaseUnavailable, DiegoError, Outcome, Saturated, ShuttingDown, twin

Item = TypeVar("Item")
Result = TypeVar("Result")

TOGETHER_MAX: Final = 256
"""Changes in one transaction: rows stay locked until the last of them is made."""
LANES: Final = 2
"""Transactions under way at once: while one waits for the disk, the next is made."""
WAITING_MAX: Final = 8_192
"""Changes that may wait; more are refused at once."""
RETRY_AFTER_S: Final = 1.0
SHARED: Final = (DatabaseUnavailable, Saturated, BudgetSpent)
"""Failures of a transaction that no other one would be spared."""


@define(eq=False)
class _Asked(Generic[Item, Result]):
    """Changes that belong together and who waits for them."""

    call: Call
    items: Sequence[Item]
    turn: asyncio.Future[None]
    """Done when it is made, or on him to make it."""
    leads: bool = False
    """It is on him to make the next transaction."""
    outcomes: Sequence[Result | DiegoError] = ()
    """One for each, once they are known."""

    def wake(self) -> None:
        if not self.turn.done():
            self.turn.set_result(None)


@define
class Together(Generic[Item, Result]):
    """One kind of change. Nobody's failure is another one's: each has an outcome of his own."""

    store: Store
    op: str
    work: Callable[[Transaction, Sequence[Item]], Awaitable[Sequence[Result | DiegoError]]]
    """Makes the changes in the order that they are given in; must be repeatable. Raises what undoes all of them."""
    shortcut: Callable[[Call, Sequence[Item]], Awaitable[Sequence[Result | None]]] | None = None
    """Makes those that it can make for less, before, and says None of the others; must be repeatable as well."""
    reserved: bool = False
    """Its transactions get through when requests take all connections."""
    lanes: int = LANES
    together_max: int = TOGETHER_MAX
    waiting_max: int = WAITING_MAX
    """More are refused at once: who waits for longer than his time is worked for in vain, and comes again."""
    gather_s: float = 0.0
    """So long others are waited for before a transaction begins; only with a single lane."""
    _waiting: deque[_Asked[Item, Result]] = field(factory=deque, init=False)
    _under_way: int = field(default=0, init=False)

    @property
    def waiting(self) -> int:
        """Changes that wait for their transaction."""
        return len(self._waiting)

    async def ask(self, call: Call, item: Item) -> Result:
        """Have one change made. Raises its own refusal, and what the transaction failed with."""
        (outcome,) = await self.ask_all(call, [item])
        if isinstance(outcome, DiegoError):
            raise twin(outcome)
        return outcome

    async def ask_all(self, call: Call, items: Sequence[Item]) -> Sequence[Result | DiegoError]:
        """Have several changes made, in one transaction; what became of each. Raises when that is not known."""
        if not items:
            return ()
        if len(self._waiting) >= self.waiting_max:
            told = f"{len(self._waiting)} changes wait for Postgres already"
            raise Saturated(told, outcome=Outcome.NOT_STARTED, retry_after_s=RETRY_AFTER_S)
        asked = _Asked[Item, Result](call, items, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        if self._under_way < self.lanes:
            self._under_way += 1
            asked.leads = True
        else:
            await self._wait(asked)
        if asked.leads:
            await self._lead(asked)
        return asked.outcomes

    async def _wait(self, asked: _Asked[Item, Result]) -> None:
        """Until it is done, or on us to do it. Who stops waiting leaves the lead, if he has it, to the next one."""
        try:
            with asked.call.hop("postgres", "postgres", self.op, DatabaseUnavailable):
                await asked.call.result_of(asked.turn, self.op)
        except BaseException:
            if asked in self._waiting:
                self._waiting.remove(asked)
            if asked.leads:
                self._pass_on()
            raise

    async def _lead(self, leader: _Asked[Item, Result]) -> None:
        """Make the changes of all who wait, and have the next of those who came meanwhile go on."""
        if self.gather_s:
            await self._gather(leader)
        batch = self._taken(leader)
        try:
            await self._make(leader.call, batch)
        finally:
            self._pass_on()
            for asked in batch:
                if not asked.outcomes:
                    stopped = ShuttingDown(f"{self.op}: this process is stopping", retry_after_s=RETRY_AFTER_S)
                    stopped.outcome = Outcome.UNKNOWN
                    asked.outcomes = [stopped] * len(asked.items)
                asked.wake()

    def _taken(self, leader: _Asked[Item, Result]) -> list[_Asked[Item, Result]]:
        """The leader, and of those who wait the first ones, as many as there may be changes in one transaction."""
        self._waiting.remove(leader)
        batch, changes = [leader], len(leader.items)
        while self._waiting and changes + len(self._waiting[0].items) <= self.together_max:
            batch.append(self._waiting.popleft())
            changes += len(batch[-1].items)
        return batch

    async def _gather(self, leader: _Asked[Item, Result]) -> None:
        """Let others come. Who stops waiting leaves the lead to the next one."""
        try:
            await leader.call.clock.sleep(self.gather_s)
        except BaseException:
            self._waiting.remove(leader)
            self._pass_on()
            raise

    def _pass_on(self) -> None:
        if self._waiting:
            self._waiting[0].leads = True
            self._waiting[0].wake()
        else:
            self._under_way -= 1

    async def _make(self, call: Call, batch: Sequence[_Asked[Item, Result]]) -> None:
        """Find out what becomes of each. When all are undone because of one, each is made by itself."""
        call = call.with_budget(max(asked.call.remaining_ms() for asked in batch))
        items = [item for asked in batch for item in asked.items]
        try:
            made = await self._made_together(call, items)
        except DiegoError as failure:
            if len(items) > 1 and not isinstance(failure, SHARED):
                made = [await self._made_alone(asked.call, item) for asked in batch for item in asked.items]
            else:
                made = [failure] * len(items)
        told = iter(made)
        for asked in batch:
            asked.outcomes = [next(told) for _ in asked.items]

    async def _made_together(self, call: Call, items: Sequence[Item]) -> Sequence[Result | DiegoError]:
        if self.shortcut is None:
            return await self._worked(call, items)
        made: Sequence[Result | DiegoError | None] = await self.shortcut(call, items)
        left = [item for item, outcome in zip(items, made, strict=True) if outcome is None]
        others = iter(await self._worked(call, left) if left else ())
        return [next(others) if outcome is None else outcome for outcome in made]

    async def _worked(self, call: Call, items: Sequence[Item]) -> Sequence[Result | DiegoError]:
        return await self.store.run(call, self.op, lambda tx: self.work(tx, items), reserved=self.reserved)

    async def _made_alone(self, call: Call, item: Item) -> Result | DiegoError:
        try:
            (outcome,) = await self._worked(call, [item])
        except DiegoError as failure:
            return failure
        return outcome
