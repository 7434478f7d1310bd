"""Where the time goes inside garden: one in this process, without the hops above it, and the record of its steps."""

from __future__ import annotations

from attrs import define, field

from cells.garden.children import become_subreaper
from cells.garden.config import GardenConfig
from cells.garden.garden import Garden
from cells.garden.spec import ContainerSpec, Limits
from diego_py.call import Call, Hop
from diego_py.embedded.cluster import Cluster
from diego_py.embedded.cluster_layout import CELLS_MAX, cell_layout, claim_slot
from diego_py.errors import GardenFailed
from diego_py.service.clock import SystemClock
from scripts.benchmarks import machine
from scripts.benchmarks.figures import Figures
from scripts.benchmarks.first_instruction import COMMAND

BUDGET_MS = 60_000.0


@define
class GardenSteps:
    """A garden with the names of the last cell that the cluster could have."""

    cluster: Cluster
    figures: Figures = field(factory=Figures)

    async def measure(self, rounds: int) -> None:
        become_subreaper()
        garden = Garden(self._config(), SystemClock())
        await garden.start()
        try:
            for number in range(rounds):
                self.figures.begin_round()
                await self._one(garden, f"steps-{number}")
        finally:
            await garden.close()

    def _config(self) -> GardenConfig:
        layout = cell_layout(self.cluster.state_dir, claim_slot(self.cluster.state_dir), CELLS_MAX)
        layout.state_dir.mkdir(mode=0o711)
        layout.state_dir.chmod(0o711)
        return GardenConfig(
            cell_id=layout.cell_id,
            state_dir=str(layout.state_dir),
            image_root=str(self.cluster.image_root),
            host_address="127.0.0.1",
            network=layout.network,
            port_first=layout.port_first,
            port_count=8,
            id_base=layout.id_base,
            id_slots=8,
            cgroup_parent=layout.names.cgroup_parent,
            interface_prefix=layout.names.interface_prefix,
            nft_table=layout.names.nft_table,
            runtime_path=self.cluster.cell_settings.get("runtime_path", "runc"),
        )

    async def _one(self, garden: Garden, handle: str) -> None:
        machine.wait_for_idle()
        machine.cool_down()
        call = Call.begin(SystemClock(), BUDGET_MS)
        spec = ContainerSpec(handle, "preloaded:busybox", COMMAND[0], COMMAND[1:], limits=Limits(memory_bytes=64 << 20))
        with call.hop("bench", "bench", "steps", GardenFailed) as inner:
            await garden.create(inner, spec)
            await garden.run(inner, handle)
            await garden.destroy(inner, handle)
        assert inner.here is not None
        for operation in inner.here.children:
            self._take(operation)

    def _take(self, operation: Hop) -> None:
        """Steps may run side by side: they need not add up."""
        self.figures.add(operation.op, operation.elapsed_ms or 0.0)
        for step in operation.steps:
            self.figures.add(f"{operation.op}: {step.op}", step.ms)
        for below in operation.children:
            self.figures.add(f"{operation.op}: {below.name} {below.op}", below.elapsed_ms or 0.0)
