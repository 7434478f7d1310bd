"""A process that owns a garden and kills itself, without a warning, just before its side effect of a given number.

The side effects are not listed anywhere: Python tells an audit hook of each change of a file and of each child, and
every function of the modules that talk to the kernel is wrapped. So a new step of garden is a new failpoint.

`python -m tests.kernel.failpoints`: a line of JSON (config, scenario, kill_at, report) in; a forked owner lives
through the scenario; a line of JSON out: how it ended. Without a number it lives to the end, and the report has its
side effects, each with the phase it was in.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from cells.garden import children, demolition, kernel, warmth
from cells.garden.config import GardenConfig
from cells.garden.garden import Garden
from cells.garden.network import netlink
from cells.garden.oci import Runtime
from cells.garden.quota import kernel as quota_kernel
from cells.garden.spec import EgressRule, Limits, ProcessSpec, Window
from diego_py.service.clock import SystemClock
from tests.kernel.containers import SOON_S, call, shell, start
from tests.kernel.images import member, tar, until
from tests.orphans import reap_dead

CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.chown", "os.link", "os.symlink", "os.kill")
CHANGES = (*CHANGES, "os.truncate", "os.setxattr", "subprocess.Popen", "fcntl.ioctl")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
LOOKING = {"open_in_root", "inotify", "connection", "attribute", "attributes", "nest", "message", "messages"}
LOOKING |= {"file_system", "project", "project_quota", "project_quota_enforced", "subvolume_id", "btrfs_uuid"}
"""Functions of the kernel's modules that change nothing."""
HANDLE = "any"
SIDECAR = "any.side"
WAITS, GOING, HALF = "waits", "going", "half"
"""Created only; being destroyed; being created."""
PORT = 8080
DISK_BYTES = 16 << 20
FILE_BYTES = 64 << 10
REAP_S = 0.01
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
        real_spawn, real_begin = children.spawn, children.begin

        async def spawn(argv: Any, **how: Any) -> Any:
            child = await real_spawn(argv, **how)
            self.reached(f"spawned {os.path.basename(argv[0])}")
            return child

        def begin(argv: Any, **how: Any) -> Any:
            child = real_begin(argv, **how)
            self.reached(f"spawned {os.path.basename(argv[0])}")
            return child

        children.spawn, children.begin = spawn, begin


def _last_name(arguments: tuple[Any, ...]) -> str:
    return next((os.path.basename(os.fspath(each)) for each in arguments if isinstance(each, (str, Path))), "")


async def live(garden: Garden, points: Failpoints) -> None:
    """One container and its sidecar from begin to end, by every operation of garden."""
    points.phase = "open"
    await garden.start()
    await until(lambda: len(garden._host.sandboxes._ready) == garden.config.sandboxes_ready)
    limits = Limits(disk_bytes=DISK_BYTES if garden.disk_limits()["driver"] != "none" else None)
    points.phase = "create"
    await garden.create(call(), shell(HANDLE, SCRIPT, ports=(PORT,), limits=limits, stdin=True))
    points.phase = "run"
    await garden.run(call(), HANDLE)
    points.phase = "exec"
    await garden.exec(call(), HANDLE, ProcessSpec("/bin/true", cwd="/tmp/new/directory"), SOON_S)
    points.phase = "session"
    for terminal in (None, Window()):
        async with await garden.open(call(), HANDLE, ProcessSpec("/bin/cat", terminal=terminal)) as session:
            await session.write(b"said\n")
            await session.stdout.readline()
            points.reached("talks")
    points.phase = "launch"
    launched = await garden.launch(call(), HANDLE, ProcessSpec("/bin/sh", ("-c", "echo begun; sleep 600")))
    await launched.close()
    points.phase = "attach"
    async with garden.attach(HANDLE) as client:
        await client.write(b"said\n")
        points.reached("talks")
    points.phase = "stream in"
    await garden.stream_in(call(), HANDLE, "/tmp/in", _chunks(points))
    points.phase = "stream out"
    async for _ in garden.stream_out(call(), HANDLE, "/tmp/in"):
        points.reached("a chunk")
    points.phase = "egress"
    await garden.set_egress(call(), HANDLE, (EgressRule("tcp", ("192.0.2.0/24",)),))
    points.phase = "sidecar"
    await garden.create(call(), shell(SIDECAR, SIDECAR_SCRIPT, sandbox_of=HANDLE))
    await garden.run(call(), SIDECAR)
    points.phase = "stop"
    await garden.stop(call(), HANDLE, grace_s=SOON_S)
    points.phase = "destroy"
    await garden.destroy(call(), HANDLE)
    points.phase = "close"
    await garden.close()
    points.reached("the end")
    points.phase = None


async def _chunks(points: Failpoints) -> AsyncIterator[bytes]:
    archive = tar(*(member(f"{number}", bytes(FILE_BYTES)) for number in range(4)))
    for begin in range(0, len(archive), FILE_BYTES):
        points.reached("a chunk")
        yield archive[begin : begin + FILE_BYTES]


async def leave(garden: Garden, points: Failpoints) -> None:
    """Die with something of every kind for the next garden to find: whole ones, half-built ones, all that goes on."""
    await garden.start()
    await start(garden, shell(HANDLE, SCRIPT, ports=(PORT,), stdin=True))
    await start(garden, shell(SIDECAR, SIDECAR_SCRIPT, sandbox_of=HANDLE))
    await garden.create(call(), shell(WAITS, "exit 8"))
    await start(garden, shell(GOING, "exec sleep 600", ports=(PORT,)))
    await garden.open(call(), HANDLE, ProcessSpec("/bin/sh", ("-c", "sleep 77 & exec sleep 77")))
    reached: asyncio.Queue[None] = asyncio.Queue()

    async def hang(*_: object) -> None:
        reached.put_nowait(None)
        await asyncio.Event().wait()

    real = Runtime.create

    async def hang_after_it(*arguments: Any) -> None:
        await real(*arguments)
        await hang()

    Runtime.create = hang_after_it  # type: ignore[method-assign, assignment]
    demolition.remove = hang  # type: ignore[assignment]
    async with asyncio.TaskGroup() as group:
        group.create_task(garden.create(call(), shell(HALF, "exec sleep 600", ports=(PORT,))))
        group.create_task(garden.destroy(call(), GOING))
        for _ in range(2):
            await reached.get()
        os.kill(os.getpid(), signal.SIGKILL)


async def restart(garden: Garden, points: Failpoints) -> None:
    """Only the start of a garden, and its end."""
    points.phase = "restart"
    await garden.start()
    points.reached("the end")
    points.phase = None
    await garden.close()


SCENARIOS = {"live": live, "leave": leave, "restart": restart}


def own(config: GardenConfig, points: Failpoints, scenario: str) -> None:
    children.become_subreaper()
    for module in (kernel, netlink, quota_kernel):
        points.wrap(module)
    points.after_spawn()
    warmth.MOVES_MAX = 1  # They change nothing, and how many there are would be the clock's choice.
    sys.addaudithook(points.audit)
    asyncio.run(SCENARIOS[scenario](Garden(config, SystemClock()), points))
    points.report.write_text(json.dumps(points.seen))


def main() -> None:
    """Fork an owner for each line: what takes time to import is imported once.

    To what an owner leaves behind this process is what init is on a host: it reaps, and does nothing else.
    """
    children.become_subreaper()
    while True:
        asked_again, _, _ = select.select([sys.stdin], [], [], REAP_S)
        if not asked_again:
            reap_dead()
            continue
        line = sys.stdin.readline()
        if not line:
            return
        asked = json.loads(line)
        report = Path(asked["report"])
        owner = os.fork()
        if owner == 0:
            try:
                own(GardenConfig(**asked["config"]), Failpoints(asked["kill_at"], report), asked["scenario"])
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        ended = 0
        while ended != owner:
            ended, status = os.waitpid(-1, 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)


if __name__ == "__main__":
    main()
