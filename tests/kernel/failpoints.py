"""A process that owns a garden and kills itself, without a warning, just before its side effect of a given number.

The side effects are not listed anywhere: Python tells an audit hook of each change of a file and of each child, and
every function of the modules that talk to the kernel is wrapped. So a new step of garden is a new failpoint.

`python -m tests.kernel.failpoints`: a line of JSON (config, kill_at) in; a forked owner lives through the scenario; a
line of JSON out: the side effects it had, each with the phase it was in. Without a number it lives to the end.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from attrs import evolve

from cells.garden import children, kernel
from cells.garden.config import GardenConfig
from cells.garden.garden import Garden
from cells.garden.network import netlink
from cells.garden.quota import kernel as quota_kernel
from cells.garden.spec import Limits, ProcessSpec
from diego_py.service.clock import SystemClock
from tests.kernel.containers import call, shell

CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.chown", "os.link", "os.symlink", "os.kill")
CHANGES = (*CHANGES, "os.truncate", "os.setxattr", "subprocess.Popen", "fcntl.ioctl")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
LOOKING = {"open_in_root", "inotify", "connection", "attribute", "attributes", "nest", "message", "messages"}
LOOKING |= {"file_system", "project", "project_quota", "project_quota_enforced", "subvolume_id", "btrfs_uuid"}
"""Functions of the kernel's modules that change nothing."""
HANDLE = "any"
SIDECAR = "any.side"
PORT = 8080
DISK_BYTES = 16 << 20
SIDECAR_SCRIPT = "trap 'exit 4' TERM; while :; do sleep 0.05; done"
SCRIPT = f"trap 'exit 3' TERM; httpd -p {PORT} -h /srv/www; while :; do sleep 0.05; done"


class Failpoints:
    """Counts side effects from `begin` on; at the one numbered `kill_at` this process is no more."""

    def __init__(self, kill_at: int | None, report: Path) -> None:
        self.kill_at = kill_at
        self.report = report
        self.phase: str | None = None
        self.seen: list[str] = []
        self.turn = threading.RLock()

    def reached(self, what: str) -> None:
        with self.turn:
            if self.phase is None:
                return
            self.seen.append(f"{self.phase}: {what}")
            if self.kill_at == len(self.seen):
                os.write(2, f"killed at {self.seen[-1]}\n".encode())
                phase, self.phase = self.phase, None
                os.kill(os.getpid(), signal.SIGKILL)
                self.phase = phase

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING):
            self.reached(f"{event} {_last_name(arguments)}")

    def wrap(self, module: ModuleType) -> None:
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not name.startswith("_") and name not in LOOKING:
                setattr(module, name, self._before(name, function))

    def _before(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def reached_first(*arguments: Any, **more: Any) -> Any:
            self.reached(name)
            return function(*arguments, **more)

        return reached_first

    def after_spawn(self) -> None:
        """A child has begun, and we do not know it yet."""
        real = children.spawn

        async def spawn(argv: Any, **how: Any) -> Any:
            child = await real(argv, **how)
            self.reached(f"spawned {os.path.basename(argv[0])}")
            return child

        children.spawn = spawn


def _last_name(arguments: tuple[Any, ...]) -> str:
    return next((os.path.basename(os.fspath(each)) for each in arguments if isinstance(each, (str, Path))), "")


async def live(garden: Garden, points: Failpoints) -> None:
    """One container and its sidecar from begin to end, by every operation of garden."""
    await garden.start()
    limits = Limits(disk_bytes=DISK_BYTES if garden.config.volumes_store_mb else None)
    points.phase = "create"
    await garden.create(call(), shell(HANDLE, SCRIPT, ports=(PORT,), limits=limits))
    points.phase = "run"
    await garden.run(call(), HANDLE)
    points.phase = "exec"
    await garden.exec(call(), HANDLE, ProcessSpec("/bin/true"), 20)
    points.phase = "open"
    async with await garden.open(call(), HANDLE, ProcessSpec("/bin/cat")):
        pass
    points.phase = "sidecar"
    await garden.create(call(), shell(SIDECAR, SIDECAR_SCRIPT, sandbox_of=HANDLE))
    await garden.run(call(), SIDECAR)
    points.phase = "stop"
    await garden.stop(call(), HANDLE, grace_s=20)
    points.phase = "destroy"
    await garden.destroy(call(), HANDLE)
    points.reached("the end")
    points.phase = None
    await garden.close()


def own(config: GardenConfig, points: Failpoints) -> None:
    children.become_subreaper()
    config = evolve(config, sandboxes_ready=0)  # Made when they are needed: so that is a part of create.
    for module in (kernel, netlink, quota_kernel):
        points.wrap(module)
    points.after_spawn()
    sys.addaudithook(points.audit)
    asyncio.run(live(Garden(config, SystemClock()), points))
    points.report.write_text(json.dumps(points.seen))


def main() -> None:
    """Fork an owner for each line: what takes time to import is imported once."""
    for line in sys.stdin:
        asked = json.loads(line)
        report = Path(asked["report"])
        owner = os.fork()
        if owner == 0:
            try:
                own(GardenConfig(**asked["config"]), Failpoints(asked["kill_at"], report))
            finally:
                os._exit(1 if sys.exc_info()[0] else 0)
        _, status = os.waitpid(owner, 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)


if __name__ == "__main__":
    main()
