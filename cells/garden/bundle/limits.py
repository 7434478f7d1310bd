"""Limits of the container as a whole, by its cgroup."""

from __future__ import annotations

from cells.garden.bundle.plan import Config, Plan

SHARES_MAX = 1024
WEIGHT_MAX = 100
PERIOD_US = 100_000
QUOTA_US_MIN = 1000
"""The kernel takes no less."""


def apply(config: Config, plan: Plan) -> Config:
    limits = plan.limits
    weight = WEIGHT_MAX if limits.cpu_weight is None else limits.cpu_weight
    resources: Config = {
        # Nothing but the runtime's own default devices.
        "devices": [{"allow": False, "access": "rwm"}],
        "pids": {"limit": limits.pids},
        "cpu": {"shares": max(2, SHARES_MAX * weight // WEIGHT_MAX), **_quota(limits.cpu_millis)},
    }
    if limits.memory_bytes is not None:
        # `swap` is memory and swap together: the same figure means no swap.
        resources["memory"] = {"limit": limits.memory_bytes, "swap": limits.memory_bytes}
    linux = {**config["linux"], "cgroupsPath": plan.cgroup_path, "resources": resources}
    return {**config, "linux": linux}


def _quota(cpu_millis: int | None) -> Config:
    """So many microseconds of processor time in each period, over all processors."""
    if cpu_millis is None:
        return {}
    return {"quota": max(QUOTA_US_MIN, cpu_millis * PERIOD_US // 1000), "period": PERIOD_US}
