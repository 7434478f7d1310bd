"""Work that takes turns: so much of it is begun in one turn of the event loop, the rest in the next ones, in order.

What else the loop has to do gets its turn in between; and what comes meanwhile can go along with what still waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from attrs import define, field

T = TypeVar("T")


@define
class Turns(Generic[T]):
    """Who comes while few do is begun at once."""

    in_a_turn: int
    begin: Callable[[T], None]
    _waiting: deque[T] = field(factory=deque, init=False)
    _begun: int = field(default=0, init=False)
    """In this turn."""

    def take(self, item: T) -> None:
        """Begin it, now or when it is its turn."""
        self._waiting.append(item)
        if self._begun < self.in_a_turn:
            if not self._begun:
                asyncio.get_running_loop().call_soon(self._next_turn)
            self._begin_some()

    def _next_turn(self) -> None:
        self._begun = 0
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next_turn)
            self._begin_some()

    def _begin_some(self) -> None:
        while self._waiting and self._begun < self.in_a_turn:
            self._begun += 1
            self.begin(self._waiting.popleft())
