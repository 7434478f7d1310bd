"""The root directory: writable, because it is the container's own overlay."""

from __future__ import annotations

from cells.garden.bundle.plan import Config, Plan


def apply(config: Config, plan: Plan) -> Config:
    return {**config, "root": {"path": plan.rootfs, "readonly": False}}
