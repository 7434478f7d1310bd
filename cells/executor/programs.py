"""What runs in each container, from its setup to its end: one task of this process for each workload."""

from __future__ import annotations

import asyncio

from attrs import define, field

from cells.executor.backend import ContainerBackend
from cells.executor.outcomes import outcome_of
from cells.executor.plan import Workload
from cells.executor.steps.step import Site
from cells.executor.transfers.transfers import FileTransfers
from cells.garden.spec import Container
from diego_py.call import Call
from diego_py.errors import DiegoError
from diego_py.service.clock import Clock
from diego_py.service.run import OwnedTasks


@define(eq=False)
class Program:
    """The setup and the action of one workload under way."""

    site: Site
    """Where the action works."""
    set_up: asyncio.Event = field(factory=asyncio.Event)
    """The setup is done, or there is none."""
    ended: asyncio.Future[DiegoError | None] = field(factory=lambda: asyncio.get_running_loop().create_future())
    """How it failed; None when all of it was done."""
    task: asyncio.Task[None] | None = None

    @property
    def has_ended(self) -> bool:
        return self.ended.done()

    async def end(self) -> DiegoError | None:
        """How it failed, once it has ended; None when all of it was done. Never, when it was cancelled."""
        return await asyncio.shield(self.ended)

    async def carry_out(self, call: Call, workload: Workload) -> None:
        """Setup, then the action."""
        self.ended.set_result(await outcome_of(self._carry_out(call, workload)))

    async def _carry_out(self, call: Call, workload: Workload) -> None:
        if workload.setup is not None:
            await workload.setup.perform(call, self.site.another())
        self.set_up.set()
        await workload.action.perform(call, self.site)


@define
class Programs:
    """All of one cell."""

    garden: ContainerBackend
    transfers: FileTransfers
    clock: Clock
    grace_s: float
    owned: OwnedTasks
    _all: dict[str, Program] = field(factory=dict, init=False)

    def begin(self, call: Call, container: Container, workload: Workload) -> Program:
        """Carry out a workload in a container; the one under way there, if there is one. Raises ShuttingDown."""
        if (known := self._all.get(container.handle)) is not None:
            return known
        program = Program(self.site(container, workload))
        work = program.carry_out(call, workload)
        program.task = self.owned.begin(work, f"program of {container.handle}")
        self._all[container.handle] = program
        return program

    def site(self, container: Container, workload: Workload) -> Site:
        """A place in the container to work in."""
        env = workload.network_env(container.network)
        return Site(self.garden, container.handle, self.transfers, self.clock, self.grace_s, env)

    async def end(self, handle: str) -> None:
        """Return when nothing of a program is under way any more: what it began was ended, with the grace time."""
        program = self._all.pop(handle, None)
        if program is not None and program.task is not None and not program.task.done():
            program.task.cancel()
            await asyncio.wait([program.task])
