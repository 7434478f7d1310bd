"""An event loop without a world: time jumps to the next timer when nothing is ready, and the seed picks who runs next.

Callbacks belong to the process in whose context they were made; those of a process that was killed never run again, so
a kill is one of `kill -9`: no `finally`, no `except`, nothing.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any, Final, TypeVar
from zlib import crc32

from attrs import define, field

T = TypeVar("T")

MASK: Final = 2**61 - 1
BATCH: Final = 512
STEP_S: Final = 1e-9
"""What a step takes: who waits again and again for less than a float can hold gets on, as on any real machine."""


class NothingLeftToDo(Exception):
    """No callback is ready and no timer is set, though somebody waits: a deadlock."""


@define(eq=False)
class SimulatedProcess:
    """What dies together. Its context marks everything that is begun in it."""

    name: str
    alive: bool = field(default=True, init=False)
    frozen: list[asyncio.Handle] | None = field(default=None, init=False)
    """What it would do now if it were not stopped; None: it is not."""
    context: Context = field(init=False)
    last_words: list[Callable[[], None]] = field(factory=list, init=False)
    """What the rest of the world notices of its end."""
    when_frozen: list[Callable[[float], None]] = field(factory=list, init=False)
    """What the rest of the world does about it, given how many seconds it will last."""

    def __attrs_post_init__(self) -> None:
        self.context = copy_context()
        self.context.run(PROCESS.set, self)

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something in this process."""
        return events.get_running_loop().create_task(work, context=self.context)

    def freeze(self, seconds: float) -> None:
        """Stop it, as SIGSTOP or a starved machine does. The world goes on."""
        if self.frozen is None:
            self.frozen = []
            for tell in self.when_frozen:
                tell(seconds)
            events.get_running_loop().call_later(seconds, self._thaw, context=Context())

    def _thaw(self) -> None:
        waiting, self.frozen = self.frozen or [], None
        events.get_running_loop().thawed(waiting)  # type: ignore[attr-defined]

    def kill(self) -> None:
        """End it without any chance to do anything."""
        self.alive = False
        for tell in self.last_words:
            tell()


PROCESS: ContextVar[SimulatedProcess | None] = ContextVar("process", default=None)


class SimulatedTask(asyncio.Task[Any]):
    """A task whose hash is its number, so that sets of tasks have the same order in every run."""

    def __init__(self, coro: Any, *, loop: SimulatedLoop, context: Context | None = None) -> None:
        self.number = loop.next_number()
        super().__init__(coro, loop=loop, context=context)

    def __hash__(self) -> int:
        return self.number


class SimulatedLoop(asyncio.BaseEventLoop):
    """One seed, one order of events."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._ready: list[asyncio.Handle] = []  # type: ignore[assignment]
        self._pick = random.random
        self._now = 1_000.0
        self._number = 0
        self._of_the_dead: list[asyncio.Handle] | None = []
        self.steps = 0
        self.trace = 0
        """A hash of every choice and every event so far."""
        self.when_quiet: Callable[[], None] = lambda: None
        """Called before time passes."""
        self.set_task_factory(simulated_task)

    def time(self) -> float:
        return self._now

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def note(self, event: str) -> None:
        """Make something that happened part of the trace."""
        self.trace = (self.trace * 1_000_003 + crc32(event.encode())) & MASK

    def bury(self) -> None:
        """Let the callbacks of dead processes run after all, so that everything can be cancelled when it is over."""
        self._ready += self._of_the_dead or ()
        self._of_the_dead = None

    def thawed(self, handles: list[asyncio.Handle]) -> None:
        """Take up what a process could not do while it was stopped."""
        self._ready += handles

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:  # type: ignore[override]
        handle = events.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """What would take a thread takes a moment of virtual time."""
        done: asyncio.Future[T] = self.create_future()

        def work() -> None:
            if done.cancelled():
                return
            try:
                done.set_result(func(*args))
            except Exception as error:
                done.set_exception(error)

        self.call_later(0.001 + 0.01 * self._pick(), work)
        return done

    def _run_once(self) -> None:
        ready, pick = self._ready, self._pick
        for _ in range(BATCH):
            while not ready:
                self.when_quiet()
                if not ready:
                    self._advance()
            count = len(ready)
            chosen = int(pick() * count)
            handle = ready[chosen]
            ready[chosen] = ready[-1]
            ready.pop()
            if handle._cancelled:  # type: ignore[attr-defined]
                continue
            process = handle._context.get(PROCESS)  # type: ignore[attr-defined]
            if process is not None and self._of_the_dead is not None:
                if not process.alive:
                    self._of_the_dead.append(handle)
                    continue
                if process.frozen is not None:
                    process.frozen.append(handle)
                    continue
            self.steps += 1
            self.trace = (self.trace * 31 + chosen * 1_009 + count) & MASK
            handle._run()
            self._now += STEP_S
            if self._stopping:  # type: ignore[attr-defined]
                return

    def _advance(self) -> None:
        """Let time pass up to the next timer."""
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        while timers:
            timer = heapq.heappop(timers)
            timer._scheduled = False  # type: ignore[attr-defined]
            if timer._cancelled:  # type: ignore[attr-defined]
                continue
            self._now = max(self._now, timer.when())
            self.trace = (self.trace * 31 + int(self._now * 1e6)) & MASK
            self._ready.append(timer)
            while timers and timers[0].when() <= self._now:
                timer = heapq.heappop(timers)
                timer._scheduled = False  # type: ignore[attr-defined]
                self._ready.append(timer)
            return
        raise NothingLeftToDo("no timer is set")

    def _process_events(self, event_list: Any) -> None:
        """There is no I/O."""

    def _write_to_self(self) -> None:
        """There is no other thread."""


def simulated_task(loop: Any, coro: Any, context: Context | None = None) -> asyncio.Task[Any]:
    return SimulatedTask(coro, loop=loop, context=context)
