"""The container's own process as a step: what a workload of one process is. It outlives the cell process."""

from __future__ import annotations

from attrs import frozen

from cells.executor import failures
from cells.executor.steps.step import Site, Step
from diego_py.call import Call
from diego_py.errors import ContainerNotFound, ContainerVanished


@frozen
class OwnProcess:
    """Let it begin and wait for its end. Who is cancelled lets go of it: it ends with its container."""

    begun: bool = False
    """An earlier cell process let it begin."""

    async def perform(self, call: Call, site: Site) -> None:
        """Raises what garden does, what `failures.exited` says of its end, or ContainerVanished."""
        if not self.begun:
            await site.garden.run(call, site.handle)
        site.begun.set()
        try:
            ended = await site.garden.wait(site.handle)
        except ContainerNotFound as missing:
            raise ContainerVanished("the container is gone and nobody asked for that") from missing
        if ended.status != 0:
            raise failures.exited(ended)


@frozen
class Beside:
    """Steps beside the own process of an idle container, which only waits."""

    inner: Step

    async def perform(self, call: Call, site: Site) -> None:
        """Raises what garden and the inner step do."""
        await site.garden.run(call, site.handle)
        await self.inner.perform(call, site)
