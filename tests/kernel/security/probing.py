"""A container with the probe, and what the probe's lines say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from cells.garden.spec import ContainerSpec, ProcessSpec
from tests.kernel.containers import shell
from tests.slowness import patient

PROBED = "preloaded:probed"
EXEC_TIMEOUT_S = patient(30)

Ways = Callable[..., Awaitable[dict[str, list[str]]]]
"""Run a shell script as a container's process, by exec and in a session: what each printed, by those names."""


def inside(handle: str, script: str, **more: Any) -> ContainerSpec:
    """A container of the probed image that runs a shell script."""
    return shell(handle, script, rootfs=PROBED, **more)


def process(script: str, user: str = "root") -> ProcessSpec:
    return ProcessSpec("/bin/sh", ("-c", script), user=user)


def table(lines: list[str]) -> dict[str, str]:
    """Lines of a name (which may have spaces) and an answer."""
    return dict(line.rsplit(" ", 1) for line in lines)


def status(lines: list[str]) -> dict[str, str]:
    """A /proc/PID/status."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
