"""Containers without a kernel. Keeps the contract of the real garden and adds what tests need: faults and ends at will.

A user process is `/bin/sh -c SCRIPT`, of which it understands `echo TEXT`, `echo TEXT > /FILE`, `exit N`,
`kill -N $$`, `sleep N` (which never ends by itself) and `trap '' TERM`, separated by `;`.
"""

from __future__ import annotations

import asyncio
import io
import posixpath
import re
import tarfile
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator, Sequence
from itertools import count

from attrs import define, evolve, field

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
from diego_py.call import Call
from diego_py.errors import (
    ContainerNotFound,
    DiegoError,
    FileMissing,
    GardenFailed,
    HandleTaken,
    IllegalTransition,
    PrivilegedRefused,
    RootfsNotFound,
)
from diego_py.service.clock import Clock, SystemClock
from tests.fakes.happenings import Happenings

TERM = 15
KILL = 9
FOREVER = None


@define
class Box:
    """One container of the fake."""

    container: Container
    spec: ContainerSpec
    env: tuple[tuple[str, str], ...]
    ended: asyncio.Event = field(factory=asyncio.Event)
    exit: Exit | None = None
    ignores_term: bool = False
    egress: tuple[EgressRule, ...] = ()
    launched: list[Launched] = field(factory=list)
    files: dict[str, bytes] = field(factory=dict)


@define(eq=False)
class Launched:
    """A process beside the container's own."""

    garden: FakeGarden
    handle: str
    process: ProcessSpec
    ignores_term: bool = False
    _ended: asyncio.Future[Exit] = field(factory=lambda: asyncio.get_running_loop().create_future())

    async def wait(self) -> Exit:
        return await asyncio.shield(self._ended)

    def signal(self, number: int) -> bool:
        """SIGTERM and SIGKILL end it."""
        self.garden.calls.add((f"signal {number}", self.handle))
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
        """Nothing of the fake leaves anything behind."""
        assert self.has_ended

    async def close(self) -> None:
        self.end(128 + KILL)


@define
class Script:
    """What a user process does: lines it writes, and how it ends (None: not by itself)."""

    lines: list[str] = field(factory=list)
    files: dict[str, bytes] = field(factory=dict)
    status: int | None = FOREVER
    ignores_term: bool = False


@define
class FakeGarden:
    """Same methods as Garden. `failures` and `holds` are by operation: create, run, exec, stop, destroy."""

    cell_id: str = "cell-1"
    clock: Clock = field(factory=SystemClock)
    address: str = "127.0.0.1"
    images: tuple[str, ...] = ("base",)
    faults: tuple[str, ...] = ()
    """What it warns of."""
    failures: dict[str, DiegoError] = field(factory=dict)
    holds: dict[str, asyncio.Event] = field(factory=dict)
    activities: dict[str, Activity] = field(factory=dict)
    """By handle, where it is not `waiting`."""
    starved: set[str] = field(factory=set)
    """Handles whose processes get no processor."""
    calls: Happenings = field(factory=Happenings)
    closed: bool = False
    _boxes: dict[str, Box] = field(factory=dict)
    _logs: dict[str, list[LogLine]] = field(factory=dict)
    _written: Happenings = field(factory=Happenings)
    _host_ports: Iterator[int] = field(factory=lambda: count(61001))

    async def start(self) -> list[Container]:
        self.closed = False
        return self.containers()

    async def create(self, call: Call, spec: ContainerSpec) -> Container:
        with call.hop("garden", self.cell_id, "create", GardenFailed):
            if spec.handle in self._boxes:
                raise HandleTaken(f"create container {spec.handle}")
            if spec.privileged:
                raise PrivilegedRefused(f"create container {spec.handle}")
            if spec.rootfs.removeprefix("preloaded:") not in self.images:
                raise RootfsNotFound(f"find rootfs {spec.rootfs}")
            await self._scripted("create", spec.handle)
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
            self._logs[spec.handle] = []
            return container

    async def run(self, call: Call, handle: str) -> None:
        with call.hop("garden", self.cell_id, "run", GardenFailed):
            box = self._box(handle)
            if box.container.state != "created":
                raise IllegalTransition(f"run a container that is {box.container.state}")
            await self._scripted("run", handle)
            box.container = evolve(box.container, state="running", started_at=self.clock.now())
            if box.spec.idle:
                return
            script = _script(box.spec.path, box.spec.args)
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
        if box is None or box.ended.is_set():
            return "ended"
        if box.spec.idle and all(process.has_ended for process in box.launched):
            return "ended"
        return self.activities.get(handle, "waiting")

    def worked_s(self, handle: str) -> float:
        """A busy one has a processor of its own, unless it is `starved`."""
        return self.clock.monotonic() if handle not in self.starved else 0.0

    def usage(self, handle: str) -> Usage:
        limits = self._box(handle).container.limits
        disk = None if limits.disk_bytes is None else DiskUsage(0, limits.disk_bytes)
        return Usage(1, limits.memory_bytes, self.worked_s(handle), 1, limits.pids, disk)

    def disk_limits(self) -> dict[str, object]:
        return {"driver": "fake", "limits": ["bytes", "inodes"], "why": ["fake: it is one"]}

    async def exec(self, call: Call, handle: str, process: ProcessSpec, timeout_s: float) -> ExecResult:
        with call.hop("garden", self.cell_id, "exec", GardenFailed):
            self._living(handle)
            await self._scripted("exec", handle)
            script = _script(process.path, process.args)
            output = "".join(f"{line}\n" for line in script.lines)
            if script.status is None:
                await self.clock.sleep(timeout_s)
            return ExecResult(script.status, output, timed_out=script.status is None)

    async def launch(self, call: Call, handle: str, process: ProcessSpec) -> Launched:
        with call.hop("garden", self.cell_id, "launch", GardenFailed):
            box = self._living(handle)
            await self._scripted("launch", handle)
            script = _script(process.path, process.args)
            box.files |= script.files
            launched = Launched(self, handle, process, script.ignores_term)
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
            await self._scripted("stream_in", handle)
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
            await self._scripted("set_egress", handle)
            self._box(handle).egress = tuple(rules)

    async def stop(self, call: Call, handle: str, grace_s: float) -> Exit:
        with call.hop("garden", self.cell_id, "stop", GardenFailed):
            box = self._box(handle)
            await self._scripted("stop", handle)
            if box.ignores_term and not box.ended.is_set():
                await self.clock.sleep(grace_s)
            self.end(handle, 128 + (KILL if box.ignores_term else TERM))
            assert box.exit is not None
            return box.exit

    async def destroy(self, call: Call, handle: str, grace_s: float = 0.0) -> None:
        with call.hop("garden", self.cell_id, "destroy", GardenFailed):
            await self._scripted("destroy", handle)
            if grace_s > 0 and (box := self._boxes.get(handle)) is not None and not box.ended.is_set():
                if box.ignores_term:
                    await self.clock.sleep(grace_s)
                else:
                    self.end(handle, 128 + TERM)
            if handle in self._boxes:
                self.end(handle, 128 + KILL)
                del self._boxes[handle]

    def containers(self) -> list[Container]:
        return [box.container for box in self._boxes.values()]

    def logs(self, handle: str, tail: int | None = None, follow: bool = False) -> AsyncIterator[LogLine]:
        if handle not in self._logs:
            raise ContainerNotFound(f"read the log of {handle}")
        return self._lines(handle, tail, follow)

    def rootfs_names(self) -> list[str]:
        return list(self.images)

    def makes_privileged(self) -> bool:
        return False

    def warnings(self) -> list[str]:
        return list(self.faults)

    async def close(self) -> None:
        self.closed = True

    # What only tests call

    def end(self, handle: str, status: int, oom_killed: bool = False, left_behind: bool = False) -> None:
        """The user process ends by itself, or the kernel ends it; `left_behind`: others of it go on, if they may."""
        box = self._boxes[handle]
        if box.ended.is_set():
            return
        lingers = left_behind and box.spec.lingers and status == 0
        box.exit = evolve(self.exit_of(handle, status, oom_killed), lingers=lingers)
        for process in box.launched:
            process.end(128 + KILL)
        box.container = evolve(box.container, state="exited")
        box.ended.set()
        self._written.add((handle, None))

    def exit_of(self, handle: str, status: int, oom_killed: bool = False) -> Exit:
        signal = status - 128 if status > 128 else None
        tail = tuple(line.text for line in self._logs[handle])[-20:]
        return Exit(status, signal, oom_killed, tail, {"memory_peak_bytes": 1}, self.clock.now())

    def launched(self, handle: str) -> list[Launched]:
        """All that were launched in a container, those that have ended too."""
        return self._boxes[handle].launched

    def files_of(self, handle: str) -> dict[str, bytes]:
        return self._boxes[handle].files

    def log_of(self, handle: str) -> list[LogLine]:
        return list(self._logs[handle])

    def vanish(self, handle: str) -> None:
        """Somebody else removes the container."""
        del self._boxes[handle]

    def write(self, handle: str, text: str, source: str | None = None) -> None:
        """The user process writes a line, or one with its own mark does."""
        own = self._boxes[handle].spec.log_source
        line = LogLine(self.clock.now(), "stdout", text, own if source is None else source)
        self._logs[handle].append(line)
        self._written.add((handle, line))

    def env_of(self, handle: str) -> dict[str, str]:
        return dict(self._boxes[handle].env)

    def spec_of(self, handle: str) -> ContainerSpec:
        return self._boxes[handle].spec

    async def called(self, op: str, times: int = 1) -> None:
        """Return when `op` was called at least so often."""
        await self.calls.first(lambda _: self.ops().count(op) >= times)

    def ops(self) -> list[str]:
        return [op for op, _ in self.calls.items]

    async def _scripted(self, op: str, handle: str) -> None:
        self.calls.add((op, handle))
        if op in self.holds:
            await self.holds[op].wait()
        if op in self.failures:
            raise self.failures[op]

    async def _lines(self, handle: str, tail: int | None, follow: bool) -> AsyncIterator[LogLine]:
        since = len(self._written.items)
        lines = self._logs[handle]
        for line in lines if tail is None else lines[max(0, len(lines) - tail) :]:
            yield line
        while follow and handle in self._boxes and not self._boxes[handle].ended.is_set():
            _, line = await self._written.first(lambda written: written[0] == handle, since)
            since = [item[0] for item in self._written.items].index(handle, since) + 1
            if line is not None:
                yield line

    def _living(self, handle: str) -> Box:
        box = self._box(handle)
        if box.ended.is_set():
            raise IllegalTransition("execute a process in a container that has ended")
        return box

    def _box(self, handle: str) -> Box:
        if handle not in self._boxes:
            raise ContainerNotFound(f"find container {handle}")
        return self._boxes[handle]


def _script(path: str, args: tuple[str, ...]) -> Script:
    """What `/bin/sh -c SCRIPT` would do."""
    assert (path, args[0]) == ("/bin/sh", "-c"), "the fake runs /bin/sh -c SCRIPT"
    script = Script()
    for part in args[1].split(";"):
        statement = part.strip()
        if found := re.fullmatch(r"echo (.*) > (/\S+)", statement):
            script.files[found[2]] = f"{found[1]}\n".encode()
        elif statement.startswith("echo "):
            script.lines.append(statement.removeprefix("echo "))
        elif statement == "trap '' TERM":
            script.ignores_term = True
        elif statement.startswith("sleep "):
            return script
        elif found := re.fullmatch(r"kill -(\d+) \$\$", statement):
            script.status = 128 + int(found[1])
            return script
        elif found := re.fullmatch(r"exit (\d+)", statement):
            script.status = int(found[1])
            return script
        else:
            raise AssertionError(f"the fake shell does not know {statement!r}")
    script.status = 0
    return script
