"""Every namespace is the container's own; its ids are a range of the host that no other container has."""

from __future__ import annotations

from cells.garden.bundle.plan import Config, Plan
from cells.garden.pools import IDS_PER_SLOT

NEW = ("pid", "network", "ipc", "uts", "mount", "cgroup")


def apply(config: Config, plan: Plan) -> Config:
    mapping = [{"containerID": 0, "hostID": plan.first_id, "size": IDS_PER_SLOT}]
    linux = {
        **config["linux"],
        "namespaces": [*({"type": name} for name in NEW), {"type": "user", "path": plan.userns}],
        "uidMappings": mapping,
        "gidMappings": mapping,
        # Slave: an unmount on the host reaches a container that is just being made, so it cannot keep a root busy.
        "rootfsPropagation": "rslave",
    }
    return {**config, "linux": linux}
