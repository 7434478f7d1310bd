"""A host: its containers and its disk, which outlive the cell process, and a runtime that fails as the seed says."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve, field

from cells.garden.spec import ContainerSpec, ExecResult, ProcessSpec
from diego_py.call import Call
from diego_py.errors import DestroyFailed, DiegoError, GardenFailed, RuntimeFailed, SandboxFailed
from tests.fakes.garden import FakeGarden
from tests.simulation.faults import Faults

ERRORS: dict[str, type[DiegoError]] = {
    "create": SandboxFailed,
    "run": RuntimeFailed,
    "stop": RuntimeFailed,
    "destroy": DestroyFailed,
}


@define
class HostGarden(FakeGarden):
    """The fake garden, with time and faults. `happened` is told what became true on the host."""

    chance: Faults = field(kw_only=True)
    happened: Callable[[str, str, str, Call], None] = field(kw_only=True)
    unready: set[str] = field(factory=set)
    """Handles whose readiness check fails."""

    def specs(self) -> dict[str, ContainerSpec]:
        """Every container of the host."""
        return {handle: box.spec for handle, box in self._boxes.items()}

    def running(self) -> list[str]:
        """The containers whose user process runs."""
        return [handle for handle, box in self._boxes.items() if box.container.state == "running"]

    async def create(self, call: Call, spec: ContainerSpec) -> object:  # type: ignore[override]
        if call.remaining_ms() <= 0:
            self.happened(self.cell_id, "late", spec.handle, call)
        container = await super().create(call, spec)
        self.happened(self.cell_id, "create", spec.handle, call)
        return container

    async def run(self, call: Call, handle: str) -> None:
        if call.remaining_ms() <= 0:
            self.happened(self.cell_id, "late", handle, call)
        await super().run(call, handle)
        self.happened(self.cell_id, "run", handle, call)
        self._fail_after(call, "run_after", RuntimeFailed)

    async def destroy(self, call: Call, handle: str, grace_s: float = 0.0) -> None:
        await super().destroy(call, handle, grace_s)
        self.happened(self.cell_id, "destroy", handle, call)
        self._fail_after(call, "destroy_after", DestroyFailed)

    async def exec(self, call: Call, handle: str, process: ProcessSpec, timeout_s: float) -> ExecResult:
        result = await super().exec(call, handle, process, timeout_s)
        return evolve(result, status=1) if handle in self.unready else result

    async def _perform(self, op: str, handle: str) -> None:
        await self.clock.sleep(self.chance.random.random() * 0.05)
        if self.chance.strikes(op):
            raise ERRORS[op](f"{op} {handle}: the runtime said no")

    def _fail_after(self, call: Call, name: str, error: type[DiegoError]) -> None:
        if self.chance.strikes(name):
            with call.hop("garden", self.cell_id, name, GardenFailed):
                raise error("it was done, and the runtime said no")
