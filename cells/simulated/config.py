"""Settings of a process of simulated cells: one JSON file, read once, strict."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Final

from attrs import field, frozen

from cells.config import CellConfig
from cells.simulated.conduct import FAILURES, Latency
from diego_py.models.identifiers import CellId
from diego_py.service.config import ConfigError

NOWHERE: Final = "/nonexistent"
CELLS_MAX: Final = 100_000


@frozen(kw_only=True)
class SimulationConfig:
    """Many cells of one kind, which differ in their names, zones and sizes."""

    cells: int = 1
    """How many; they are called PREFIX-00001 and so on."""
    prefix: str = "sim"
    bbs_urls: tuple[str, ...]
    """BBSes, or one load balancer before them."""
    listen_host: str = "127.0.0.1"
    listen_port: int = 0
    """One for all: the cell NAME is reached at `http://HOST:PORT/cells/NAME`. 0 takes any free one."""
    zones: int = 3
    """Failure domains z1, z2 and so on, in turn."""
    memory_mb: tuple[int, ...] = (16_384,)
    """Sizes; each cell has one of them, by chance."""
    disk_mb: tuple[int, ...] = (102_400,)
    """As `memory_mb`."""
    containers_max: int = 250
    images: tuple[str, ...] = ("busybox", "base")
    """Names of `preloaded:` rootfs. Those of registries may be any."""
    latencies: Mapping[str, str] = field(factory=dict)
    """By operation of the runtime (create, run, stop, destroy): `MEDIAN` or `MEDIAN,P99` in milliseconds."""
    failure_rates: Mapping[str, float] = field(factory=dict)
    """By operation: which part of the calls fails, from 0 to 1."""
    instances: int = 0
    """So many run already when the cells start, dealt out in turn, as if the cells had been started again. Their rows
    are somebody else's business (cells/simulated/prefilled.py says how they are called)."""
    seed: int = 1
    """Of all chance: sizes, latencies, failures."""
    report_interval_s: float = 5.0
    """As a cell's."""
    request_budget_ms: int = 60_000
    """As a cell's."""

    def __attrs_post_init__(self) -> None:
        if not 1 <= self.cells <= CELLS_MAX:
            raise ConfigError(f"cells takes 1 to {CELLS_MAX}")
        if not 0 <= self.instances <= self.cells * self.containers_max:
            raise ConfigError("instances takes 0 to cells x containers_max")
        if self.zones < 1 or not self.memory_mb or not self.disk_mb:
            raise ConfigError("zones, memory_mb and disk_mb need at least one")
        if unknown := (self.latencies.keys() | self.failure_rates.keys()) - FAILURES.keys():
            raise ConfigError(f"there is no operation {min(unknown)}; there are {', '.join(FAILURES)}")
        if any(not 0 <= rate <= 1 for rate in self.failure_rates.values()):
            raise ConfigError("a failure rate is from 0 to 1")
        self.drawn_latencies()

    def drawn_latencies(self) -> dict[str, Latency]:
        """The latencies as distributions. Raises ConfigError."""
        try:
            return {op: Latency.parse(text) for op, text in self.latencies.items()}
        except ValueError as wrong:
            raise ConfigError(str(wrong)) from wrong

    def cell(self, number: int, random: Random) -> CellConfig:
        """The settings of one cell, counted from 1."""
        return CellConfig(
            cell_id=CellId(f"{self.prefix}-{number:05d}"),
            zone=f"z{(number - 1) % self.zones + 1}",
            bbs_urls=self.bbs_urls,
            state_dir=NOWHERE,
            image_root=NOWHERE,
            memory_mb=random.choice(self.memory_mb),
            disk_mb=random.choice(self.disk_mb),
            containers_max=self.containers_max,
            report_interval_s=self.report_interval_s,
            request_budget_ms=self.request_budget_ms,
            graceful_stop_s=1.0,
        )
