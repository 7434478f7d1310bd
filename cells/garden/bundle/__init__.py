"""The OCI configuration of a container: a fold of rules, one a file, each `apply(config, plan) -> config`. Pure."""

from __future__ import annotations

from functools import reduce

from cells.garden.bundle import (
    hostname,
    limits,
    mounts,
    namespaces,
    network_sysctls,
    paths,
    process,
    root,
    seccomp,
)
from cells.garden.bundle.plan import Config, Plan

RULES = (root, process, hostname, namespaces, mounts, paths, limits, network_sysctls, seccomp)


def build(plan: Plan) -> Config:
    """The whole configuration."""
    empty: Config = {"ociVersion": "1.0.2", "linux": {}}
    return reduce(lambda config, rule: rule.apply(config, plan), RULES, empty)


__all__ = ["Config", "Plan", "build"]
