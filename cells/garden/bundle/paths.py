"""Parts of /proc and /sys that say too much about the host (hidden) or that a container must not change (read-only).

Of a privileged one nothing is hidden, and what it mounts or writes there is its own affair.
"""

from __future__ import annotations

from cells.garden.bundle.plan import Config, Plan

MASKED = (
    "/proc/acpi",
    "/proc/asound",
    # Together with the thermal counters (plan.counters) a side channel: key strokes and others' activity show in it.
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
    # With cgroup v1 the runtime mounts the hierarchies read-only, but not the directory that holds them.
    "/sys/fs/cgroup",
)


def apply(config: Config, plan: Plan) -> Config:
    if plan.privileged:
        return config
    linux = {**config["linux"], "maskedPaths": [*MASKED, *plan.counters], "readonlyPaths": list(READONLY)}
    return {**config, "linux": linux}
