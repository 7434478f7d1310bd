"""What cells make ahead of need they make when it is quiet: who measures waits for that, or he would measure it too."""

from __future__ import annotations

import time

from attrs import define, field, fields

from cells.config import CellConfig
from cells.garden.cgroups import SANDBOXES, Cgroups
from diego_py.embedded.cluster import Cluster
from diego_py.embedded.cluster_layout import CONTAINERS_MAX

LOOK_S = 0.05
WAIT_S = 60.0
ZYGOTE = 1


@define
class Prepared:
    """The sandboxes of a cluster's cells."""

    cluster: Cluster
    _cgroups: list[Cgroups] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._cgroups = [Cgroups.of_host(layout.names.cgroup_parent) for layout in self.cluster.layouts]

    def wait(self) -> None:
        """Return when every cell has as many as it keeps. Raises TimeoutError."""
        until_s = time.monotonic() + WAIT_S
        while not all(map(self._has_all, self._cgroups)):
            if time.monotonic() > until_s:
                raise TimeoutError(f"the cells have not all their sandboxes within {WAIT_S:.0f} s")
            time.sleep(LOOK_S)

    def _has_all(self, cell: Cgroups) -> bool:
        containers = len(cell.handles())
        kept = self.cluster.cell_settings.get("sandboxes_ready", fields(CellConfig).sandboxes_ready.default)
        wanted = min(kept, CONTAINERS_MAX - containers)
        return bool(len(cell.processes(SANDBOXES)) >= ZYGOTE + containers + wanted)
