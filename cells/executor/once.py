"""One workload that runs once and ends: begun, waited for, and how it ended. Books and the BBS are the rep's."""

from __future__ import annotations

import asyncio

from attrs import define

from cells.executor.executor import Executor
from cells.executor.outcomes import first_of
from cells.executor.plan import Workload
from cells.executor.programs import Program
from cells.garden.spec import Container
from diego_py.call import Call
from diego_py.errors import DiegoError, ExecutorFailed, StoppedWhileStarting, TaskInterrupted


@define
class RunOnce:
    """Carries a workload out to its end."""

    executor: Executor

    async def begin(self, call: Call, container: Container, workload: Workload, stop_asked: asyncio.Event) -> None:
        """Begin the action; returns when a process of the user runs, or when all is done. Its end is `finish`'s.

        Raises how it ended when it failed before, and StoppedWhileStarting.
        """
        executor = self.executor
        with call.hop("executor", executor.cell_id, "start", ExecutorFailed) as inner:
            program = executor.programs.begin(inner, container, workload)
            await first_of(_begun(program), _ended(program), _asked(stop_asked))

    async def finish(
        self, call: Call, container: Container, workload: Workload, result_file: str
    ) -> tuple[str, DiegoError | None]:
        """Wait for the end of what was begun, by an earlier boot of the cell too; its result, and how it failed.

        The failure is framed and chained.
        """
        try:
            if workload.lost:
                raise TaskInterrupted("what ran in the container cannot be taken up in the middle")
            return await self.executor.run_to_end(call, container, workload, result_file), None
        except DiegoError as failure:
            return "", failure


async def _begun(program: Program) -> None:
    await program.site.begun.wait()


async def _ended(program: Program) -> None:
    failure = await program.end()
    if failure is not None:
        raise failure


async def _asked(stop_asked: asyncio.Event) -> None:
    await stop_asked.wait()
    raise StoppedWhileStarting("stopped before a process of it ran")
