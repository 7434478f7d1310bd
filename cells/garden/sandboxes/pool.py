"""The sandboxes of one garden: numbers of the host with namespaces that are theirs, some made ahead of need.

A sandbox belongs to one container and ends with it; it is never used again. What is ready is used first, so that the
prepared ones never keep a container from its numbers. They are made when nothing else is done: there are as many as a
burst takes, and whoever takes one does not pay for the next.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

from attrs import define, field, frozen

from cells.garden.children import together
from cells.garden.monitor import gone
from cells.garden.network.pair import Link
from cells.garden.pools import IDS_PER_SLOT, Addresses, Pool
from cells.garden.processes import Process, is_alive, kill
from cells.garden.sandboxes.maker import Maker
from diego_py.errors import PoolExhausted

SCARCE = 4
"""When fewer are left, more are made also while containers are."""
SOON_S = 0.1
"""How long after a sandbox was taken one of those is begun: until then its container needs the processors."""
QUIET_S = 1.0
"""How long no container must have come or gone before the others are made, one after the other."""


@frozen
class Place:
    """The numbers of a sandbox: its range of ids and its address, and by that its link."""

    id_slot: int
    address_number: int


@define
class Sandboxes:
    """Hands out each place once until it comes back."""

    id_base: int
    size: int
    """How many are kept ready."""
    places_max: int
    """Containers that there can be: with so many, and those that are ready, no more is made ahead."""
    link_of: Callable[[int], Link]
    """The link that belongs to the number of an address."""
    link_gone: Callable[[str], Awaitable[None]]
    """Returns when no link of this name is left."""
    addresses: Addresses
    id_slots: Pool
    maker: Maker
    _ready: deque[Place] = field(factory=deque, init=False)
    _holders: dict[Place, Process] = field(factory=dict, init=False)
    _making: dict[Place, asyncio.Future[Process]] = field(factory=dict, init=False)
    _is_open: bool = field(default=False, init=False)
    _refilling: asyncio.TimerHandle | None = field(default=None, init=False)
    _quiet_since_s: float = field(default=0.0, init=False)

    @property
    def idle(self) -> set[Place]:
        """The places whose sandboxes no container has: ready, or on the way to be."""
        return {*self._ready, *self._making}

    async def open(self) -> None:
        """Begin to make some ahead of need. Raises RuntimeMissing, CgroupFailed, OSError."""
        await self.maker.open()
        self._is_open = True
        self._quiet_since_s = asyncio.get_running_loop().time()
        self._refill()

    def reserve(self, privileged: bool = False) -> Place:
        """A place, if there is one with its sandbox; but a privileged one needs another kind. Raises PoolExhausted."""
        if privileged:
            with contextlib.suppress(PoolExhausted):  # Then one that is ready gives its place.
                return self._new_place()
        while self._ready:
            place = self._ready.popleft()
            if is_alive(self._holders[place]):
                return place
            self._holders.pop(place)
            self._give_back(place)
        return self._new_place()

    def enter(self, place: Place) -> Process | None:
        """The holder of a reserved place, if it was made ahead of need."""
        self._refill_later()
        return self._holders.pop(place, None)

    async def have(self, place: Place, privileged: bool = False) -> Process:
        """The same, made now if it is not there yet; a privileged one has no user namespace.

        Raises SandboxFailed, NetworkFailed.
        """
        holder = self.enter(place)
        if holder is not None and privileged:
            kill(holder)
            await gone(holder)
            holder = None
        if holder is None:
            link = self.link_of(place.address_number)
            await self.link_gone(link.name)
            holder = await self.maker.have(None if privileged else self._ids(place), link)
        return holder

    def take_exactly(self, place: Place) -> None:
        """Mark a place as used: an adopted container has it. Raises ValueError when it is not ours or taken."""
        self.id_slots.take_exactly(place.id_slot)
        self.addresses.take_exactly(place.address_number)

    def release(self, place: Place) -> None:
        """Give the numbers back; the container is gone. A sandbox that was not entered is as good as before."""
        self._refill_later()
        if place in self._holders:
            self._ready.append(place)
            return
        self._give_back(place)

    def _refill_later(self) -> None:
        """A container comes or goes."""
        self._quiet_since_s = asyncio.get_running_loop().time()
        if self._is_open and (self._refilling is None or self._refilling.when() > self._quiet_since_s + SOON_S):
            self._wake(SOON_S)

    def _wake(self, after_s: float) -> None:
        if self._refilling is not None:
            self._refilling.cancel()
        self._refilling = asyncio.get_running_loop().call_later(after_s, self._refill)

    def _refill(self) -> None:
        """Have made what is scarce, and the rest when it is quiet; they become ready by themselves."""
        self._refilling = None
        while self._is_open and self._ahead < self.size and self.id_slots.taken < self.places_max:
            if self._ahead >= SCARCE:
                if self._making:  # It is the next one's turn when this one is made.
                    return
                quiet_in_s = self._quiet_since_s + QUIET_S - asyncio.get_running_loop().time()
                if quiet_in_s > 0:
                    self._wake(quiet_in_s)
                    return
            try:
                place = self._new_place()
            except PoolExhausted:
                return
            answer = self.maker.ask(self._ids(place), self.link_of(place.address_number))
            self._making[place] = answer
            answer.add_done_callback(partial(self._made, place))
            if answer.done():
                return

    @property
    def _ahead(self) -> int:
        return len(self._ready) + len(self._making)

    def _made(self, place: Place, answer: asyncio.Future[Process]) -> None:
        del self._making[place]
        if answer.cancelled() or answer.exception() is not None:
            # Nobody asked for this one yet: whoever needs one has it made, and is told why not.
            self._give_back(place)
            return
        self._holders[place] = answer.result()
        self._ready.append(place)
        if self._refilling is None:
            self._refill()

    async def close(self) -> None:
        """End those that no container has, and whatever makes them."""
        self._is_open = False
        if self._refilling is not None:
            self._refilling.cancel()
        await asyncio.gather(*self._making.values(), return_exceptions=True)
        await self.maker.close()
        ready, self._ready = self._ready, deque()
        await together(*map(self._end, ready))

    async def _end(self, place: Place) -> None:
        holder = self._holders.pop(place)
        kill(holder)
        await gone(holder)
        await self.link_gone(self.link_of(place.address_number).name)
        self._give_back(place)

    def _new_place(self) -> Place:
        slot = self.id_slots.take()
        try:
            return Place(slot, self.addresses.take())
        except PoolExhausted:
            self.id_slots.give_back(slot)
            raise

    def _give_back(self, place: Place) -> None:
        self.id_slots.give_back(place.id_slot)
        self.addresses.give_back(place.address_number)

    def _ids(self, place: Place) -> tuple[int, int]:
        return self.id_base + place.id_slot * IDS_PER_SLOT, IDS_PER_SLOT
