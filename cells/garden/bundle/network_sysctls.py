"""Settings of the container's own network namespace: ping and low ports need no capability, for both are its own."""

from __future__ import annotations

from cells.garden.bundle.plan import Config, Plan
from cells.garden.pools import IDS_PER_SLOT


def apply(config: Config, plan: Plan) -> Config:
    sysctls = {
        "net.ipv4.ping_group_range": f"0 {IDS_PER_SLOT - 1}",
        "net.ipv4.ip_unprivileged_port_start": "0",
    }
    return {**config, "linux": {**config["linux"], "sysctl": sysctls}}
