"""Numbered resources of the host: id ranges, addresses, host ports. A number is handed out once until it comes back."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network

from attrs import define, field

from diego_py.errors import PoolExhausted

IDS_PER_SLOT = 65_536


@define
class Pool:
    """The numbers 0 .. size-1 as a bitmap."""

    name: str
    size: int
    usable: Callable[[int], bool] = lambda number: True
    """Asked for a free number before it is handed out: something else on the host may use it."""
    goes_round: bool = True
    """A number rests as long as possible before its reuse; else the lowest free one is taken."""
    _taken: int = field(default=0, init=False)
    _next: int = field(default=0, init=False)

    def take(self) -> int:
        """A free number. Raises PoolExhausted."""
        for number in self._from_next():
            if not self._taken >> number & 1 and self.usable(number):
                self._taken |= 1 << number
                self._next = (number + 1) % self.size if self.goes_round else 0
                return number
        raise PoolExhausted(
            f"none of the {self.size} {self.name} is free",
            evidence={"pool": self.name, "size": self.size, "taken": self.taken},
        )

    def take_exactly(self, number: int) -> None:
        """Mark a number as used: an adopted container has it. Raises ValueError when it is not ours or taken."""
        if not 0 <= number < self.size:
            raise ValueError(f"{number} is not one of the {self.size} {self.name}")
        if self._taken >> number & 1:
            raise ValueError(f"{number} of the {self.name} is taken twice")
        self._taken |= 1 << number

    def give_back(self, number: int) -> None:
        self._taken &= ~(1 << number)

    @property
    def taken(self) -> int:
        """How many are in use."""
        return self._taken.bit_count()

    def _from_next(self) -> Iterator[int]:
        yield from range(self._next, self.size)
        yield from range(self._next)


@define
class Addresses:
    """The container addresses of a network: all but the network itself, the gateway and the broadcast address."""

    network: IPv4Network
    _pool: Pool = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._pool = Pool("addresses", self.network.num_addresses - 3)

    @property
    def gateway(self) -> str:
        return str(self.network[1])

    def take(self) -> int:
        return self._pool.take()

    def take_exactly(self, number: int) -> None:
        self._pool.take_exactly(number)

    def give_back(self, number: int) -> None:
        self._pool.give_back(number)

    def address(self, number: int) -> str:
        return str(self.network[number + 2])


def port_is_free(port: int) -> bool:
    """Nothing on the host listens on this TCP port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.bind(("0.0.0.0", port))
        except OSError as refused:
            if refused.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def port_pool(first: int, count: int) -> Pool:
    """Host ports; `number + first` is the port."""
    return Pool("host ports", count, usable=lambda number: port_is_free(first + number))
