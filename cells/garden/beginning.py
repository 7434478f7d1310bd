"""A container's monitor and its process: the monitor loads beside the furnishing, the process needs all of it."""

from __future__ import annotations

from contextlib import AsyncExitStack

from cells.garden import bundle
from cells.garden.box import Box
from cells.garden.children import uninterrupted
from cells.garden.conmon import Conmon
from cells.garden.host import Host
from diego_py.call import Call
from diego_py.errors import RuntimeFailed


async def monitor(host: Host, call: Call, box: Box, waiting: AsyncExitStack) -> Conmon:
    """One that waits until its process is to be created; `waiting` ends its wait. Raises RuntimeMissing."""
    with call.hop(host.runtime.name, host.config.cell_id, "begin", RuntimeFailed):
        begun = host.runtime.begin(box.handle, box.directory, box.record.keeps_output, box.record.stdin)
        waiting.push_async_callback(_give_up, begun)
        return begun


async def _give_up(begun: Conmon) -> None:
    if begun.waits:
        await uninterrupted(begun.give_up())


async def process(host: Host, call: Call, box: Box, begun: Conmon, config: bundle.Config, limit_s: float) -> None:
    """Have the process, which waits to be started. Raises RuntimeSilent, RuntimeFailed and the kinds of it."""
    with call.step("runtime"), call.hop(host.runtime.name, host.config.cell_id, "create", RuntimeFailed):
        await uninterrupted(_have_process(host, box, begun, config, limit_s))


async def _have_process(host: Host, box: Box, begun: Conmon, config: bundle.Config, limit_s: float) -> None:
    with box.noting_silence():
        box.has_processes(*await host.runtime.create(begun, box.directory, config, limit_s))
