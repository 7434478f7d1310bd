"""Run: one process in the container, to its end. Diego: executor/depot/steps/run_step.go."""

from __future__ import annotations

import asyncio
import signal

from attrs import evolve, frozen

from cells.executor import failures
from cells.executor.backend import LaunchedProcess
from cells.executor.outcomes import first_of
from cells.executor.steps.step import Site
from cells.garden.children import uninterrupted
from cells.garden.spec import Exit, ProcessSpec
from diego_py.call import Call


@frozen
class Run:
    """A process beside the container's own; done when it exits with 0."""

    process: ProcessSpec
    leaves: bool = False
    """What it left behind when it exits with 0 goes on: it may have gone to the background."""

    async def perform(self, call: Call, site: Site) -> None:
        """Raises what garden does for one that cannot be started, and what `failures.exited` says of its end."""
        described = evolve(self.process, env=(*self.process.env, *site.network_env))
        process = await site.garden.launch(call, site.handle, described)
        site.begun.set()
        ended = None
        try:
            ended = await process.wait()
        except asyncio.CancelledError:
            await uninterrupted(self._end(process, site))
            raise
        finally:
            if self.leaves and ended is not None and ended.status == 0:
                process.leave()
            else:
                await process.close()
        self._tell(site, f"Exit status {ended.status}")
        if ended.status != 0:
            raise failures.exited(ended, self.process.log_source)

    async def _end(self, process: LaunchedProcess, site: Site) -> None:
        """Ask it to end, and wait for the grace time; who closes it kills what is left."""
        process.signal(signal.SIGTERM)
        ended = await first_of(_end_of(process), _patience(site))
        if ended is None:
            self._tell(site, f"Killed: exceeded {site.grace_s:g} s graceful shutdown interval")

    def _tell(self, site: Site, text: str) -> None:
        if not self.process.silent:
            site.tell(self.process.log_source, text)


async def _end_of(process: LaunchedProcess) -> Exit | None:
    return await process.wait()


async def _patience(site: Site) -> Exit | None:
    await site.clock.sleep(site.grace_s)
    return None
