"""Every namespace is the container's own; its ids are a range of the host that no other container has.

A privileged one has no user namespace: its ids are the host's.

Most are made before it, with a process that holds them (cells/garden/sandboxes); the runtime joins those.
"""

from __future__ import annotations

from cells.garden.bundle.plan import Config, Plan
from cells.garden.pools import IDS_PER_SLOT

NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup", "user")


def apply(config: Config, plan: Plan) -> Config:
    kinds = [kind for kind in NAMESPACES if kind != "user" or not plan.privileged]
    linux = {
        **config["linux"],
        "namespaces": [_namespace(kind, plan.namespaces.get(kind)) for kind in kinds],
        **({} if plan.privileged else _mappings(plan.first_id)),
        # Slave: an unmount on the host reaches a container that is just being made, so it cannot keep a root busy.
        "rootfsPropagation": "rslave",
    }
    return {**config, "linux": linux}


def _mappings(first_id: int) -> Config:
    mapping = [{"containerID": 0, "hostID": first_id, "size": IDS_PER_SLOT}]
    return {"uidMappings": mapping, "gidMappings": mapping}


def _namespace(kind: str, path: str | None) -> Config:
    return {"type": kind} if path is None else {"type": kind, "path": path}
