"""What the executor is told to bring to life and keep alive. Pure."""

from __future__ import annotations

import attrs

from cells.garden.spec import ContainerSpec
from diego_py.models.checks import Check


@attrs.frozen(kw_only=True)
class HealthPlan:
    """When a workload counts as healthy. Kept with the container as JSON, so that an adopted one is watched alike."""

    checks: tuple[Check, ...] = ()
    """All must pass; without any, a process that waits for something, or survives the settle time, is healthy."""
    start_timeout_s: float
    """From the start of the process to the first round in which all checks pass."""


@attrs.frozen(kw_only=True)
class Plan:
    """One workload: its container, and how it is kept."""

    spec: ContainerSpec
    health: HealthPlan
