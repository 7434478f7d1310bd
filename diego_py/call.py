"""One request on its way through one process: its ids, its remaining time, and the hops it is in.

A `Call` is passed to every function of the chain. `call.hop(...)` is the only way to make a frame of the chain: it
times, wraps and links, so that no hop does it differently.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import TypeVar

from attrs import define, field, frozen

from diego_py.errors import BudgetSpent, DiegoError, E, Frame, InternalError, Outcome, Step
from diego_py.service.clock import Clock

T = TypeVar("T")

ANSWER_MARGIN_MS = 50.0
"""What each hop keeps of its budget to be able to answer itself (Boulder shaves its deadlines the same way)."""


@frozen
class Budget:
    """How long the request may take: a deadline on this process's monotonic clock. Relative on the wire."""

    deadline_s: float
    total_ms: float

    @classmethod
    def of(cls, milliseconds: float, clock: Clock) -> Budget:
        """A budget of so many milliseconds from now."""
        return cls(deadline_s=clock.monotonic() + milliseconds / 1000, total_ms=milliseconds)

    def remaining_ms(self, clock: Clock) -> float:
        """Milliseconds left; negative when overspent."""
        return (self.deadline_s - clock.monotonic()) * 1000


@define
class Hop:
    """The record of one hop while it runs and after: its own steps, the hops below, and when anything below ran."""

    name: str
    id: str
    op: str
    began_s: float
    began_at: datetime
    attempt: int | None = None
    elapsed_ms: float | None = None
    steps: list[Step] = field(factory=list)
    children: list[Hop] = field(factory=list)

    def finish(self, now_s: float) -> None:
        self.elapsed_ms = (now_s - self.began_s) * 1000

    @property
    def self_ms(self) -> float:
        """Own time: elapsed less the time during which at least one hop below was running."""
        return self._self_ms(self.ended_s)

    def _self_ms(self, now_s: float) -> float:
        below_s, counted_until_s = 0.0, self.began_s
        for child in sorted(self.children, key=lambda hop: hop.began_s):
            ended_s = now_s if child.elapsed_ms is None else min(child.ended_s, now_s)
            below_s += max(0.0, ended_s - max(child.began_s, counted_until_s))
            counted_until_s = max(counted_until_s, ended_s)
        return max(0.0, (now_s - self.began_s - below_s) * 1000)

    def frame(self, error: DiegoError, now_s: float) -> Frame:
        """The line of the chain that this hop contributes when `error` leaves it, now if it is still open."""
        until_s = now_s if self.elapsed_ms is None else self.ended_s
        return Frame(
            hop=self.name,
            id=self.id,
            op=self.op,
            code=error.code,
            detail=error.message,
            status=error.status,
            started_at=self.began_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            elapsed_ms=round((until_s - self.began_s) * 1000, 2),
            self_ms=round(self._self_ms(until_s), 2),
            attempt=self.attempt,
            steps=tuple(self.steps),
        )

    @property
    def ended_s(self) -> float:
        """When it ended, on the monotonic clock of this process."""
        return self.began_s + (self.elapsed_ms or 0.0) / 1000

    def critical_path(self) -> list[Hop]:
        """This hop and those below it that made it take as long as it did, in order of time.

        From the end backwards: the hop below that ended last, then the last of those that had ended when it began.
        """
        waited_for: list[Hop] = []
        until_s = float("inf")
        for child in sorted(self.children, key=lambda hop: hop.ended_s, reverse=True):
            if child.ended_s <= until_s:
                waited_for.append(child)
                until_s = child.began_s
        return [self, *(hop for child in reversed(waited_for) for hop in child.critical_path())]


@frozen
class Call:
    """What a function of the chain needs to know of the request it serves. Immutable; `hop` gives the next one down."""

    request_id: str
    trace_id: str
    budget: Budget
    clock: Clock
    here: Hop | None = None

    @classmethod
    def begin(cls, clock: Clock, budget_ms: float, request_id: str | None = None) -> Call:
        """A call that starts in this process: a loop's, a test's or a command's."""
        trace_id = secrets.token_hex(16)
        return cls(request_id or trace_id, trace_id, Budget.of(budget_ms, clock), clock)

    def with_budget(self, milliseconds: float) -> Call:
        """The same call with another budget (work that goes on after its caller stopped waiting)."""
        return Call(self.request_id, self.trace_id, Budget.of(milliseconds, self.clock), self.clock, self.here)

    def remaining_ms(self) -> float:
        return self.budget.remaining_ms(self.clock)

    @contextmanager
    def hop(
        self, name: str, id: str, op: str, fails_as: type[DiegoError], attempt: int | None = None
    ) -> Iterator[Call]:
        """Enter a hop. An error leaving it carries exactly one frame more.

        An error that has no frame yet is this hop's own and receives the hop's frame; one that has a frame came from
        below and becomes the cause of a new `fails_as(op)`. Anything that is no DiegoError is a defect of ours and
        becomes an InternalError. An error whose document is finished passes through untouched.
        """
        hop = Hop(name, id, op, self.clock.monotonic(), self.clock.now(), attempt)
        if self.here is not None:
            self.here.children.append(hop)
        try:
            yield self._within(hop)
        except DiegoError as error:
            self._close(hop)
            if error.finished:
                raise
            left = self._within(hop).left_with(error, fails_as)
            raise left from left.__cause__
        except Exception as defect:
            self._close(hop)
            ours = InternalError(f"{op}: unexpected {type(defect).__name__}", outcome=Outcome.UNKNOWN)
            ours.frame = hop.frame(ours, self.clock.monotonic())
            raise ours from defect
        finally:
            self._close(hop)

    def _within(self, hop: Hop) -> Call:
        """`attrs.evolve` would take several times as long, in every hop of every request."""
        return Call(self.request_id, self.trace_id, self.budget, self.clock, hop)

    def left_with(self, error: DiegoError, fails_as: type[DiegoError]) -> DiegoError:
        """`error` with the frame of the hop this call is in if it is the hop's own, else a `fails_as` caused by it."""
        if error.frame is None or self.here is None:
            return self.framed(error)
        outer = self.framed(fails_as(self.here.op))
        outer.__cause__ = error
        return outer

    def framed(self, error: E) -> E:
        """Give `error` the frame of the hop this call is in, as it stands now, and return it."""
        if self.here is not None:
            error.frame = self.here.frame(error, self.clock.monotonic())
        return error

    def _close(self, hop: Hop) -> None:
        if hop.elapsed_ms is None:
            hop.finish(self.clock.monotonic())

    @contextmanager
    def step(self, op: str) -> Iterator[None]:
        """Time a named part of the current hop's own work."""
        began_s = self.clock.monotonic()
        try:
            yield
        finally:
            if self.here is not None:
                self.here.steps.append(Step(op, round((self.clock.monotonic() - began_s) * 1000, 2)))

    @asynccontextmanager
    async def within_budget(self, op: str, outcome: Outcome = Outcome.UNKNOWN) -> AsyncIterator[None]:
        """Bound the body by the remaining budget, less the margin for our own answer.

        Raises BudgetSpent when there is no time left or it runs out inside, at once if it is spent already.
        """
        seconds = self._seconds_left(op)
        try:
            async with asyncio.timeout(seconds) as scope:
                yield
        except TimeoutError as timeout:
            if not scope.expired():
                raise
            raise self._spent(op, outcome) from timeout

    async def result_of(self, future: asyncio.Future[T], op: str, outcome: Outcome = Outcome.UNKNOWN) -> T:
        """What a future comes to that nobody else waits for, as `within_budget` and for a small part of the cost."""
        try:
            return await result_within(self._seconds_left(op), future)
        except TimeoutError as timeout:
            raise self._spent(op, outcome) from timeout

    def _seconds_left(self, op: str) -> float:
        remaining_ms = self.remaining_ms() - ANSWER_MARGIN_MS
        if remaining_ms <= 0:
            raise BudgetSpent(f"{op}: no time left to begin", outcome=Outcome.NOT_STARTED)
        return remaining_ms / 1000

    def _spent(self, op: str, outcome: Outcome) -> BudgetSpent:
        return BudgetSpent(f"{op}: not done within {self.budget.total_ms:.0f} ms", outcome=outcome)


async def result_within(seconds: float, future: asyncio.Future[T]) -> T:
    """What a future comes to that nobody else waits for. Raises TimeoutError when it takes longer.

    As `asyncio.timeout` around it, which costs four times as much: thousands of instances wait at once.
    """
    timer = future.get_loop().call_later(seconds, _give_up, future)
    try:
        return await future
    finally:
        timer.cancel()


def _give_up(future: asyncio.Future[T]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())
