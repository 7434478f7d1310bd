"""What a step is, and what it has at hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Protocol

from attrs import define, evolve, field

from cells.executor.backend import ContainerBackend
from cells.executor.transfers.transfers import FileTransfers
from cells.garden.spec import Env
from diego_py.call import Call
from diego_py.errors import ContainerNotFound, DiegoError
from diego_py.service.clock import Clock


@define(eq=False)
class Site:
    """One container that steps work in."""

    garden: ContainerBackend
    handle: str
    transfers: FileTransfers
    clock: Clock
    grace_s: float
    """Between asking a process to end and killing it."""
    network_env: Env = field(default=(), repr=False)
    """Stronger than the environment of any action."""
    begun: asyncio.Event = field(factory=asyncio.Event)
    """Set once a process of the user runs."""

    def another(self) -> Site:
        """The same container for other work: nothing of that has begun."""
        return evolve(self, begun=asyncio.Event())

    def tell(self, source: str, text: str) -> None:
        """Write a line to the app's log; one whose container is gone has nobody to tell it to."""
        with contextlib.suppress(ContainerNotFound):
            self.garden.note(self.handle, source, text)


class Step(Protocol):
    """Something to do in a container."""

    async def perform(self, call: Call, site: Site) -> None:
        """Return when it is done; raise the DiegoError that says how it failed.

        One that is cancelled ends what it began, with the grace time of the site, before the cancellation goes on.
        """


def joined(failures: Sequence[DiegoError]) -> DiegoError:
    """One error for several that happened beside each other: the first, with the others in its evidence."""
    first, *others = failures
    if others:
        root = first.root
        told = [{"code": other.root.code, "detail": other.root.message} for other in others]
        root.evidence = {**(root.evidence or {}), "others": told}
    return first
