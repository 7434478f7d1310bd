"""The simulated garden with what tests need beside it: faults and ends at will, and a list of what was asked of it."""

from __future__ import annotations

import asyncio

from attrs import define, field

from cells.garden.spec import Activity, Container, ContainerSpec, LogLine, ProcessSpec
from cells.simulated.garden import Launched, SimulatedGarden
from cells.simulated.shell import Script
from diego_py.errors import DiegoError
from tests.fakes.happenings import Happenings


@define(eq=False)
class RecordedProcess(Launched):
    """A process beside the container's own whose signals are on the list."""

    calls: Happenings = field(kw_only=True)

    def signal(self, number: int) -> bool:
        self.calls.add((f"signal {number}", self.handle))
        return super().signal(number)


@define
class FakeGarden(SimulatedGarden):
    """`failures` and `holds` are by operation: create, run, exec, stop, destroy."""

    faults: tuple[str, ...] = ()
    """What it warns of."""
    failures: dict[str, DiegoError] = field(factory=dict)
    holds: dict[str, asyncio.Event] = field(factory=dict)
    activities: dict[str, Activity] = field(factory=dict)
    """By handle, where it is not `waiting`."""
    starved: set[str] = field(factory=set)
    """Handles whose processes get no processor."""
    calls: Happenings = field(factory=Happenings)
    closed: bool = False

    async def start(self) -> list[Container]:
        self.closed = False
        return await super().start()

    def activity(self, handle: str) -> Activity:
        found = super().activity(handle)
        return self.activities.get(handle, found) if found == "waiting" else found

    def worked_s(self, handle: str) -> float:
        return super().worked_s(handle) if handle not in self.starved else 0.0

    def warnings(self) -> list[str]:
        return list(self.faults)

    async def close(self) -> None:
        self.closed = True

    def script(self, path: str, args: tuple[str, ...]) -> Script:
        """Tests say only what it understands."""
        script = super().script(path, args)
        assert not script.beyond, f"the simulated shell does not know {script.beyond!r}"
        return script

    def launched(self, handle: str) -> list[Launched]:
        """All that were launched in a container, those that have ended too."""
        return self._boxes[handle].launched

    def files_of(self, handle: str) -> dict[str, bytes]:
        return self._boxes[handle].files

    def log_of(self, handle: str) -> list[LogLine]:
        return list(self._logs[handle].lines)

    def vanish(self, handle: str) -> None:
        """Somebody else removes the container."""
        del self._boxes[handle]

    def env_of(self, handle: str) -> dict[str, str]:
        return dict(self._boxes[handle].env)

    def spec_of(self, handle: str) -> ContainerSpec:
        return self._boxes[handle].spec

    async def called(self, op: str, times: int = 1) -> None:
        """Return when `op` was called at least so often."""
        await self.calls.first(lambda _: self.ops().count(op) >= times)

    def ops(self) -> list[str]:
        return [op for op, _ in self.calls.items]

    def _launched(self, handle: str, process: ProcessSpec, ignores_term: bool) -> Launched:
        return RecordedProcess(self, handle, process, ignores_term, calls=self.calls)

    async def _perform(self, op: str, handle: str) -> None:
        self.calls.add((op, handle))
        if op in self.holds:
            await self.holds[op].wait()
        if op in self.failures:
            raise self.failures[op]
        await super()._perform(op, handle)
