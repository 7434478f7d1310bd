"""What the kernel tests say often: an image, specs, and running containers to their end."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cells.garden.garden import Garden
from cells.garden.spec import ContainerSpec
from diego_py.call import Call
from diego_py.service.clock import SystemClock
from tests.slowness import patient

IMAGE = "preloaded:busybox"

RUNTIMES = ("runc", "crun", "youki", "runsc")

INSTALLED = [name for name in RUNTIMES if shutil.which(name)]
every_runtime = pytest.mark.parametrize("runtime_path", INSTALLED, indirect=True)
"""Run the test once with each OCI runtime that this machine has."""

BUDGET_MS = patient(60) * 1000
SOON_S = patient(20)
"""What an extra process, or a stop that is heeded, takes at most."""


def call(budget_ms: float = BUDGET_MS) -> Call:
    return Call.begin(SystemClock(), budget_ms)


def spec(handle: str, *argv: str, **more: Any) -> ContainerSpec:
    """A container that runs `argv` in the busybox image."""
    return ContainerSpec(handle=handle, rootfs=more.pop("rootfs", IMAGE), path=argv[0], args=argv[1:], **more)


def shell(handle: str, script: str, **more: Any) -> ContainerSpec:
    return spec(handle, "/bin/sh", "-c", script, **more)


def runtime_of_version(directory: Path, said: str) -> str:
    """runc under another version."""
    program = directory / "runc"
    program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec echo "{said}"\nexec {shutil.which("runc")} "$@"\n')
    program.chmod(0o755)
    return str(program)


async def start(garden: Garden, wanted: ContainerSpec) -> None:
    await garden.create(call(), wanted)
    await garden.run(call(), wanted.handle)


async def output(garden: Garden, wanted: ContainerSpec) -> list[str]:
    """What a container prints from begin to end; it is destroyed."""
    await start(garden, wanted)
    await garden.wait(wanted.handle)
    await garden.destroy(call(), wanted.handle)
    return [line.text async for line in garden.logs(wanted.handle)]


async def until_printed(garden: Garden, handle: str, text: str) -> None:
    """Return when the container has printed a line with `text`."""
    async for line in garden.logs(handle, follow=True):
        if text in line.text:
            return
    raise AssertionError(f"{handle} ended without printing {text!r}")


def cgroup_trees() -> list[Path]:
    """Where cgroups are mounted: one directory on v2, one for each hierarchy on v1 and hybrid hosts."""
    top = Path("/sys/fs/cgroup")
    return [top] if (top / "cgroup.controllers").exists() else list(top.iterdir())


def cgroups_of(garden: Garden, handle: str) -> list[Path]:
    """The directories of a container that exist, one in each tree."""
    cgroups = garden._host.cgroups
    places = [Path(tree.mount + cgroups.path(handle)) for tree in cgroups.trees]
    return [place for place in places if place.is_dir()]


def move_below(garden: Garden, handle: str, *pids: int) -> None:
    """Into a new cgroup below the container's own, in the tree in which garden looks for processes."""
    cgroups = garden._host.cgroups
    below = Path(f"{cgroups._listing}{cgroups.path(handle)}/below/deeper")
    below.mkdir(parents=True)
    for pid in pids:
        (below / "cgroup.procs").write_text(str(pid))


def make_busybox(image: Path) -> None:
    for name in ("bin", "etc", "tmp", "root", "home/vcap", "dev", "proc", "sys", "srv/www"):
        (image / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", image / "bin/busybox")
    applets = subprocess.run(["busybox", "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (image / "bin" / applet).symlink_to("busybox")
    (image / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nvcap:x:1000:1000::/home/vcap:/bin/sh\n")
    (image / "etc/group").write_text("root:x:0:\nvcap:x:1000:\nextra:x:2000:vcap\n")
    (image / "etc/not-executable").write_text("#!/bin/sh\n")
    (image / "bin/not-a-program").write_bytes(b"\x00\x01\x02\x03")
    (image / "bin/not-a-program").chmod(0o755)
    (image / "srv/www/index.html").write_text("hello\n")
    (image / "root").chmod(0o700)
    (image / "tmp").chmod(0o1777)
    os.chown(image / "home/vcap", 1000, 1000)
