"""Containers that are only remembered. Keeps the contract of the real garden; what a process does is in shell.py."""

from __future__ import annotations

import asyncio
import io
import posixpath
import tarfile
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator, Sequence
from itertools import count

from attrs import define, evolve, field

from cells.garden.images.held import HeldImages
from cells.garden.spec import (
    Activity,
    Container,
    ContainerSpec,
    DiskUsage,
    EgressRule,
    ExecResult,
    Exit,
    LogLine,
    MainProcess,
    Network,
    PortForward,
    ProcessSpec,
    Usage,
)
from cells.simulated import shell
from cells.simulated.conduct import Conduct
from cells.simulated.logs import Log
from cells.simulated.shell import Script
from diego_py.call import Call
from diego_py.errors import (
    ContainerNotFound,
    FileMissing,
    GardenFailed,
    HandleTaken,
    IllegalTransition,
    PrivilegedRefused,
    RootfsNotFound,
)
from diego_py.service.clock import Clock, SystemClock

TERM = 15
KILL = 9
LOGS_KEPT_MAX = 1_000
"""Logs of containers that are gone, which can still be read; of more, those that went first are forgotten."""
PRELOADED = "preloaded:"


@define
class Box:
    """One container."""

    container: Container
    spec: ContainerSpec
    env: tuple[tuple[str, str], ...]
    ended: asyncio.Event = field(factory=asyncio.Event)
    exit: Exit | None = None
    ignores_term: bool = False
    egress: tuple[EgressRule, ...] = ()
    launched: list[Launched] = field(factory=list)
    files: dict[str, bytes] = field(factory=dict)
    left_behind: bool = False
    """Its own process has ended, and others of it live."""


@define(eq=False)
class Launched:
    """A process beside the container's own."""

    garden: SimulatedGarden
    handle: str
    process: ProcessSpec
    ignores_term: bool = False
    _ended: asyncio.Future[Exit] = field(factory=lambda: asyncio.get_running_loop().create_future())

    async def wait(self) -> Exit:
        return await asyncio.shield(self._ended)

    def signal(self, number: int) -> bool:
        """SIGTERM and SIGKILL end it."""
        if self._ended.done():
            return False
        if number == KILL or not self.ignores_term:
            self.end(128 + number)
        return True

    def end(self, status: int) -> None:
        if not self._ended.done():
            self._ended.set_result(self.garden.exit_of(self.handle, status))

    @property
    def has_ended(self) -> bool:
        return self._ended.done()

    def leave(self) -> None:
        """It has left nothing behind."""
        assert self.has_ended

    async def close(self) -> None:
        self.end(128 + KILL)


@define
class SimulatedGarden:
    """Same methods as Garden."""

    cell_id: str = "cell-1"
    clock: Clock = field(factory=SystemClock)
    address: str = "127.0.0.1"
    images: tuple[str, ...] = ("base",)
    """Names that `preloaded:` rootfs may have; those of other kinds may be anything."""
    conduct: Conduct | None = None
    """None: everything is done at once, and never fails."""
    _boxes: dict[str, Box] = field(factory=dict)
    _logs: dict[str, Log] = field(factory=dict)
    _held: HeldImages = field(factory=HeldImages)
    _host_ports: Iterator[int] = field(factory=lambda: count(61001))

    async def start(self) -> list[Container]:
        return self.containers()

    async def create(self, call: Call, spec: ContainerSpec) -> Container:
        with call.hop("garden", self.cell_id, "create", GardenFailed):
            if spec.handle in self._boxes:
                raise HandleTaken(f"create container {spec.handle}")
            if spec.privileged:
                raise PrivilegedRefused(f"create container {spec.handle}")
            if spec.rootfs.startswith(PRELOADED) and spec.rootfs.removeprefix(PRELOADED) not in self.images:
                raise RootfsNotFound(f"find rootfs {spec.rootfs}")
            await self._perform("create", spec.handle)
            if not spec.rootfs.startswith(PRELOADED):
                self._held.used(spec.rootfs, "")
            return self._made(spec)

    def prefill(self, spec: ContainerSpec) -> None:
        """It runs already, since an earlier start of the cell."""
        container = self._made(spec)
        self._boxes[spec.handle].container = evolve(container, state="running", started_at=self.clock.now())

    def _made(self, spec: ContainerSpec) -> Container:
        ports = tuple(PortForward(port, next(self._host_ports)) for port in spec.ports)
        network = Network(self.address, "192.0.2.1", ports)
        process = MainProcess(spec.path, spec.args, spec.cwd or "/", spec.user or "root", 0, 0)
        container = Container(
            spec.handle,
            dict(spec.properties),
            network,
            "created",
            spec.limits,
            self.clock.now(),
            process=process,
        )
        more = spec.network_env(network) if spec.network_env else ()
        self._boxes[spec.handle] = Box(container, spec, (*spec.env, *spec.own_env, *more))
        self._begin_log(spec.handle)
        return container

    async def run(self, call: Call, handle: str) -> None:
        with call.hop("garden", self.cell_id, "run", GardenFailed):
            box = self._box(handle)
            if box.container.state != "created":
                raise IllegalTransition(f"run a container that is {box.container.state}")
            await self._perform("run", handle)
            box.container = evolve(box.container, state="running", started_at=self.clock.now())
            if box.spec.idle:
                return
            script = self.script(box.spec.path, box.spec.args)
            box.ignores_term = script.ignores_term
            box.files |= script.files
            for text in () if box.spec.silent else script.lines:
                self.write(handle, text)
            if script.status is not None:
                self.end(handle, script.status)

    async def wait(self, handle: str) -> Exit:
        box = self._box(handle)
        await box.ended.wait()
        assert box.exit is not None
        return box.exit

    def activity(self, handle: str) -> Activity:
        box = self._boxes.get(handle)
        if box is None or (box.ended.is_set() and not box.left_behind):
            return "ended"
        if box.spec.idle and all(process.has_ended for process in box.launched):
            return "ended"
        return "waiting"

    def worked_s(self, handle: str) -> float:
        """Each has a processor of its own."""
        return self.clock.monotonic()

    def usage(self, handle: str) -> Usage:
        limits = self._box(handle).container.limits
        disk = None if limits.disk_bytes is None else DiskUsage(0, limits.disk_bytes)
        return Usage(1, limits.memory_bytes, self.worked_s(handle), 1, limits.pids, disk)

    def disk_limits(self) -> dict[str, object]:
        return {"driver": "simulated", "limits": ["bytes", "inodes"], "why": ["simulated: nothing is ever written"]}

    async def exec(self, call: Call, handle: str, process: ProcessSpec, timeout_s: float) -> ExecResult:
        with call.hop("garden", self.cell_id, "exec", GardenFailed):
            self._living(handle)
            await self._perform("exec", handle)
            script = self.script(process.path, process.args)
            output = "".join(f"{line}\n" for line in script.lines)
            if script.status is None:
                await self.clock.sleep(timeout_s)
            return ExecResult(script.status, output, timed_out=script.status is None)

    async def launch(self, call: Call, handle: str, process: ProcessSpec) -> Launched:
        with call.hop("garden", self.cell_id, "launch", GardenFailed):
            box = self._living(handle)
            await self._perform("launch", handle)
            script = self.script(process.path, process.args)
            box.files |= script.files
            launched = self._launched(handle, process, script.ignores_term)
            box.launched.append(launched)
            if not process.silent:
                for text in script.lines:
                    self.write(handle, text, process.log_source)
            if script.status is not None:
                launched.end(script.status)
            return launched

    def note(self, handle: str, source: str, text: str) -> None:
        self._box(handle)
        self.write(handle, text, source)

    async def stream_in(
        self, call: Call, handle: str, path: str, archive: AsyncIterable[bytes], user: str = "root"
    ) -> None:
        with call.hop("garden", self.cell_id, "stream in", GardenFailed):
            box = self._box(handle)
            await self._perform("stream_in", handle)
            content = b"".join([chunk async for chunk in archive])
            with tarfile.open(fileobj=io.BytesIO(content)) as unpacked:
                for member in unpacked:
                    if member.isreg():
                        file = unpacked.extractfile(member)
                        assert file is not None
                        box.files[posixpath.normpath(posixpath.join("/root", path, member.name))] = file.read()

    async def stream_out(self, call: Call, handle: str, path: str, user: str = "root") -> AsyncGenerator[bytes, None]:
        with call.hop("garden", self.cell_id, "stream out", GardenFailed):
            content = self._box(handle).files.get(posixpath.join("/root", path))
            if content is None:
                raise FileMissing(f"copy out {path}")
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w") as archive:
                described = tarfile.TarInfo(path.rpartition("/")[2])
                described.size = len(content)
                archive.addfile(described, io.BytesIO(content))
            yield packed.getvalue()

    async def set_egress(self, call: Call, handle: str, rules: Sequence[EgressRule]) -> None:
        with call.hop("garden", self.cell_id, "set_egress", GardenFailed):
            await self._perform("set_egress", handle)
            self._box(handle).egress = tuple(rules)

    async def stop(self, call: Call, handle: str, grace_s: float) -> Exit:
        with call.hop("garden", self.cell_id, "stop", GardenFailed):
            self._box(handle)
            await self._perform("stop", handle)
            box = self._box(handle)
            if box.ignores_term and not box.ended.is_set():
                await self.clock.sleep(grace_s)
            self.end(handle, 128 + (KILL if box.ignores_term else TERM))
            box.left_behind = False
            assert box.exit is not None
            return box.exit

    async def destroy(self, call: Call, handle: str, grace_s: float = 0.0) -> None:
        with call.hop("garden", self.cell_id, "destroy", GardenFailed):
            await self._perform("destroy", handle)
            if grace_s > 0 and (box := self._boxes.get(handle)) is not None and not box.ended.is_set():
                if box.ignores_term:
                    await self.clock.sleep(grace_s)
                else:
                    self.end(handle, 128 + TERM)
            if handle in self._boxes:
                self.end(handle, 128 + KILL)
                del self._boxes[handle]
                self._keep_logs()

    def containers(self) -> list[Container]:
        return [box.container for box in self._boxes.values()]

    def logs(self, handle: str, tail: int | None = None, follow: bool = False) -> AsyncIterator[LogLine]:
        if handle not in self._logs:
            raise ContainerNotFound(f"read the log of {handle}")
        return self._logs[handle].read(tail, follow)

    def rootfs_names(self) -> list[str]:
        return list(self.images)

    def held_images(self) -> tuple[str, ...]:
        return self._held.names({""})

    def limits_disk(self) -> bool:
        return True

    def makes_privileged(self) -> bool:
        return False

    def warnings(self) -> list[str]:
        return []

    async def close(self) -> None:
        """Nothing to let go of."""

    def end(self, handle: str, status: int, oom_killed: bool = False, left_behind: bool = False) -> None:
        """The user process ends by itself, or the kernel ends it; `left_behind`: others of it go on, if they may."""
        box = self._boxes[handle]
        if box.ended.is_set():
            return
        lingers = left_behind and box.spec.lingers and status == 0
        box.exit = evolve(self.exit_of(handle, status, oom_killed), lingers=lingers)
        box.left_behind = lingers
        for process in box.launched:
            process.end(128 + KILL)
        box.container = evolve(box.container, state="exited")
        box.ended.set()
        self._logs[handle].end()

    def end_left_behind(self, handle: str) -> None:
        """What lives of it beside its own process ends."""
        self._boxes[handle].left_behind = False

    def exit_of(self, handle: str, status: int, oom_killed: bool = False) -> Exit:
        signal = status - 128 if status > 128 else None
        tail = tuple(line.text for line in self._logs[handle].lines)[-20:]
        return Exit(status, signal, oom_killed, tail, {"memory_peak_bytes": 1}, self.clock.now())

    def write(self, handle: str, text: str, source: str | None = None) -> None:
        """The user process writes a line, or one with its own mark does."""
        own = self._boxes[handle].spec.log_source
        line = LogLine(self.clock.now(), "stdout", text, own if source is None else source)
        self._logs[handle].add(line)

    def script(self, path: str, args: tuple[str, ...]) -> Script:
        """What a command does."""
        return shell.read(path, args)

    def _launched(self, handle: str, process: ProcessSpec, ignores_term: bool) -> Launched:
        return Launched(self, handle, process, ignores_term)

    async def _perform(self, op: str, handle: str) -> None:
        """Take the time of an operation, or fail."""
        if self.conduct is not None:
            await self.conduct.perform(op, handle)

    def _begin_log(self, handle: str) -> None:
        self._logs[handle] = Log()

    def _keep_logs(self) -> None:
        """Forget the oldest logs of containers that are gone, when there are too many."""
        gone = len(self._logs) - len(self._boxes)
        if gone > LOGS_KEPT_MAX:
            del self._logs[next(handle for handle in self._logs if handle not in self._boxes)]

    def _living(self, handle: str) -> Box:
        box = self._box(handle)
        if box.ended.is_set():
            raise IllegalTransition("execute a process in a container that has ended")
        return box

    def _box(self, handle: str) -> Box:
        if handle not in self._boxes:
            raise ContainerNotFound(f"find container {handle}")
        return self._boxes[handle]
