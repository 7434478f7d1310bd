"""The containers of one cell: create, run, stop, destroy, each from top to bottom.

Every step is one call to a leaf. What a step may leave half-done is undone by the same `_demolish` that destroys a
whole container: it takes away whatever it finds and does not mind what is missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from attrs import define, evolve, field

from cells.garden import (
    activity,
    allocation,
    beginning,
    demolition,
    ending,
    execution,
    furnishing,
    launched,
    log_reading,
    processes,
    recovery,
    rootfs,
    session,
    sidecars,
    warmth,
)
from cells.garden.attachment import Attachment, attach
from cells.garden.box import Box
from cells.garden.builders import Builders
from cells.garden.children import in_thread, together, uninterrupted
from cells.garden.config import GardenConfig
from cells.garden.files import copying
from cells.garden.host import Host
from cells.garden.images import provide
from cells.garden.images.layer_files import LayerFiles
from cells.garden.images.store import Store
from cells.garden.images.unpack import UnpackLimits
from cells.garden.launched import Launched
from cells.garden.monitor import Monitor
from cells.garden.network import events, live
from cells.garden.session import Session
from cells.garden.spec import Activity, Container, ContainerSpec, ExecResult, Exit, LogLine, ProcessSpec, Usage
from cells.garden.undo import Undo, in_time
from diego_py.call import Call
from diego_py.errors import (
    ContainerNotFound,
    GardenFailed,
    IllegalTransition,
    RuntimeFailed,
)
from diego_py.service.clock import Clock


@define
class Garden:
    """All containers of one configuration. `start` first; `close` leaves them running for the next one to adopt."""

    config: GardenConfig
    clock: Clock
    tell: events.Tell = events.unheard
    _host: Host = field(init=False)
    _store: Store = field(init=False)
    _monitor: Monitor = field(factory=Monitor, init=False)
    _boxes: dict[str, Box] = field(factory=dict, init=False)
    _builders: Builders = field(factory=Builders, init=False)

    def __attrs_post_init__(self) -> None:
        config = self.config
        self._host = Host(config, self.tell)
        self._store = Store(
            LayerFiles(Path(config.state_dir, "images")),
            UnpackLimits(bytes_max=config.layer_bytes_max, entries_max=config.layer_entries_max),
            config.image_store_bytes_max,
            self.clock,
            in_use=lambda: {box.record.layer for box in self._boxes.values() if box.record.layer},
        )

    async def start(self) -> list[Container]:
        """Prepare the host, adopt the containers of an earlier garden, remove what it left half-built.

        Adopted ones that ended meanwhile are in state `exited`, those that could not be removed in `destroying`.
        Raises DiegoError when the host cannot be used.
        """
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self.close)
            await in_thread(self._host.prepare)
            self._host.watch()
            plan = recovery.look(self._host)
            self._boxes = {box.handle: box for box in plan.adopt}
            await self._host.firewall.prepare(box.elements for box in plan.adopt if box.main is None)
            await recovery.end_runtimes(self._host)
            for box in plan.adopt:
                self._watch(box)
                await recovery.settle(self._host, box)
            for box in await recovery.demolish_all(self._host, plan):
                self._boxes[box.handle] = box
                self._watch(box)
            await recovery.end_sandboxes(self._host, {box.holder for box in self._boxes.values()})
            await recovery.sweep_links(self._host, {box.interface for box in self._boxes.values()})
            await self._store.prepare()
            for box in sorted(plan.adopt, key=lambda box: box.record.created_at):
                if box.record.layer:
                    self._store.held.used(box.record.rootfs, box.record.layer)
            await in_thread(self._host.depot.take_up_logs)
            await self._host.sandboxes.open()
            undo.pop_all()
        return self.containers()

    async def create(self, call: Call, spec: ContainerSpec) -> Container:
        """Make a container whose user process has not begun. Any failure leaves nothing of it behind.

        Raises GardenFailed or, as its causes, RootfsNotFound, ImageHasNoCommand and the like, RegistryFailed and
        ArchiveUnsafe, NoSpace, UserNotFound, PoolExhausted, MountFailed, RuntimeFailed and its kinds, NetworkFailed,
        QuotaUnavailable, VolumeFailed, BudgetSpent; ContainerNotFound for a sidecar of none; ContainerStuck, then what
        is left of it stays listed until it can be destroyed.
        """
        with call.hop("garden", self.config.cell_id, "create", GardenFailed) as call:
            self._host.check(spec)
            wanted = provide.find(spec, self.config, self._store)
            async with in_time(call, spec.handle, self._boxes):
                with call.step("allocate"):
                    box = allocation.allocate(self._host, self._boxes, spec, self.clock.now())
                self._boxes[spec.handle] = box
                async with box.lock, AsyncExitStack() as undo:
                    undo.push_async_exit(Undo(call, box, self._demolish))
                    with call.step("image"):
                        root = await wanted.provide(call)
                    box.record = evolve(box.record, layer=root.top, image=provide.said(root.config))
                    spec = provide.completed(spec, root.config)
                    async with self._builders.slot() as alone:
                        await warmth.beside(self._host.cgroups, alone, self._build(call, spec, box, root))
                    box.complete = True
                    undo.pop_all()
            return box.container()

    async def _build(self, call: Call, spec: ContainerSpec, box: Box, root: provide.Root) -> None:
        with call.step("sandbox"):
            if not self._host.enter_sandbox(box):
                await uninterrupted(self._host.have_sandbox(box))
        with call.step("depot"):
            self._host.depot.make(box.record)
        async with AsyncExitStack() as waiting:
            monitor = beginning.monitor(self._host, call, box, waiting)
            config, begun = await together(furnishing.furnish(self._host, call, spec, box, root), monitor)
            process = beginning.process(self._host, call, box, begun, config, furnishing.patience(call, spec))
            await together(process, self._open_firewall(call, box))
        self._host.depot.save(box.record)
        self._watch(box)

    async def _open_firewall(self, call: Call, box: Box) -> None:
        with call.step("firewall"):
            if box.main is None:
                await self._host.firewall.add(box.elements)

    async def run(self, call: Call, handle: str) -> None:
        """Let the user process begin. Raises ContainerNotFound, IllegalTransition, RuntimeFailed."""
        with call.hop("garden", self.config.cell_id, "run", GardenFailed) as call:
            box = self._box(handle)
            async with box.lock:
                if box.state != "created" or box.ended.done():
                    raise IllegalTransition(f"run a container that is {box.state}")
                box.record = evolve(box.record, phase="running", started_at=self.clock.now().isoformat())
                self._host.depot.save(box.record)
                with call.hop(self._host.runtime.name, self.config.cell_id, "start", RuntimeFailed):
                    await self._host.runtime.start(handle, box.directory, box.init)
                if not box.ended.done():
                    box.state = "running"

    async def wait(self, handle: str) -> Exit:
        """How the user process ended, as soon as it has, for any number of callers. Raises ContainerNotFound."""
        return await self._box(handle).end()

    def activity(self, handle: str) -> Activity:
        """What the container does at this moment; `ended` for one that is not there. Reads some files of /proc."""
        return activity.of(self._boxes.get(handle), self._host.cgroups)

    def worked_s(self, handle: str) -> float:
        """Seconds of processor time that the container's processes have used; 0 for one that is not there."""
        return self._host.cgroups.worked_s(handle)

    def usage(self, handle: str) -> Usage:
        """What the container uses now. Some small files of the kernel are read. Raises ContainerNotFound."""
        return self._host.usage(self._box(handle))

    def disk_limits(self) -> Mapping[str, object]:
        """How this host holds containers to disk limits: `driver`, `limits` (bytes, inodes), and `why` it is so."""
        return self._host.volumes.about()

    async def exec(self, call: Call, handle: str, process: ProcessSpec, timeout_s: float) -> ExecResult:
        """Run one more process in a container; it is killed with its children after `timeout_s`. Raises as `open`."""
        with call.hop("garden", self.config.cell_id, "exec", GardenFailed) as call:
            box = self._running(handle)
            with call.hop(self._host.runtime.name, self.config.cell_id, "exec", RuntimeFailed):
                return await execution.execute(self._host, box, process, timeout_s)

    async def open(self, call: Call, handle: str, process: ProcessSpec) -> Session:
        """Start one more process in a container, to talk to while it runs. Close what this answers.

        Raises ContainerNotFound, IllegalTransition, UserNotFound, ExecNotFound, PoolExhausted, RuntimeFailed.
        """
        with call.hop("garden", self.config.cell_id, "open", GardenFailed) as call:
            box = self._running(handle)
            with call.hop(self._host.runtime.name, self.config.cell_id, "exec", RuntimeFailed):
                return await session.begin(self._host, box, process)

    async def launch(self, call: Call, handle: str, process: ProcessSpec) -> Launched:
        """Start one more process in a container that has not ended; what it writes goes to the container's log.

        Also in one whose own process has not begun. Close what this answers. Raises as `open` does.
        """
        with call.hop("garden", self.config.cell_id, "launch", GardenFailed) as call:
            box = self._running(handle)
            with call.hop(self._host.runtime.name, self.config.cell_id, "exec", RuntimeFailed):
                return await launched.begin(self._host, box, process, self.clock)

    def note(self, handle: str, source: str, text: str) -> None:
        """Write a line of our own to the log of a container, marked with `source`. Raises ContainerNotFound."""
        launched.writer(self._host, self._box(handle), source, "stdout").write_line(text, self.clock.now())

    def attach(self, handle: str) -> Attachment:
        """The output of the container's own process, and its input. Raises ContainerNotFound, IllegalTransition."""
        return attach(self._box(handle), self.logs(handle, tail=0, follow=True))

    async def stream_in(
        self, call: Call, handle: str, path: str, archive: AsyncIterable[bytes], user: str = "root"
    ) -> None:
        """Unpack a tar stream below `path` as a user of the container, running or not; missing directories are made.

        Everything unpacked is that user's; a relative path is one in its home. Raises ContainerNotFound, UserNotFound,
        FilesFailed and its kinds.
        """
        with call.hop("garden", self.config.cell_id, "stream in", GardenFailed):
            await copying.send(self._host, self._box(handle), path, archive, user)

    async def stream_out(self, call: Call, handle: str, path: str, user: str = "root") -> AsyncGenerator[bytes, None]:
        """The tar stream of `path` (with a slash at its end: of what is in it), as a user of the container may read it.

        Raises ContainerNotFound, UserNotFound, FilesFailed and its kinds. Close it when it is not read to its end.
        """
        with call.hop("garden", self.config.cell_id, "stream out", GardenFailed):
            async with contextlib.aclosing(copying.fetch(self._host, self._box(handle), path, user)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def set_egress(self, call: Call, handle: str, rules: live.Rules) -> None:
        """Change what a container may reach, in one step. Connections that it has open stay open.

        Raises ContainerNotFound, InvalidSpec, NetworkFailed; after the last one the old rules hold.
        """
        with call.hop("garden", self.config.cell_id, "set egress", GardenFailed):
            await live.set_egress(self._host, self._box(handle), rules)

    async def stop(self, call: Call, handle: str, grace_s: float) -> Exit:
        """End the user process: SIGTERM to all, then SIGKILL to what is left after `grace_s`. The container stays.

        Raises ContainerNotFound, ContainerStuck.
        """
        with call.hop("garden", self.config.cell_id, "stop", GardenFailed):
            box = self._box(handle)
            await ending.ask(box, self._host, grace_s)
            if box.ended.done():
                processes.kill_all(lambda: self._host.cgroups.processes(handle))
                return box.ended.result()
            processes.kill(box.init)
            return await demolition.death(self._host, box)

    async def destroy(self, call: Call, handle: str, grace_s: float = 0.0) -> None:
        """Remove the container and all it has, sidecars included, but the log. Nothing happens when it does not exist.

        Its process is asked to end first if it has a grace time. Callers at the same time share the work.
        Raises DestroyFailed, BudgetSpent; then it can be called again.
        """
        with call.hop("garden", self.config.cell_id, "destroy", GardenFailed) as call:
            box = self._boxes.get(handle)
            if box is not None:
                if grace_s > 0 and box.complete:
                    await ending.ask(box, self._host, grace_s)
                await self._destroy(call, box)

    async def _destroy(self, call: Call | None, box: Box) -> None:
        async with box.turn(call):
            if self._boxes.get(box.handle) is box:
                await uninterrupted(self._demolish(call, box))

    async def _demolish(self, call: Call | None, box: Box) -> None:
        box.record = evolve(box.record, phase="destroying")
        with contextlib.suppress(FileNotFoundError):  # Creation may have failed before there was a directory.
            self._host.depot.save(box.record)
        await together(*(self._destroy(call, each) for each in sidecars.of(self._boxes, box)))
        # Its processes are told first: they die while the others are at work.
        await together(self._clear(call, box), demolition.close_firewall(self._host, box))
        demolition.forget(self._host, box)
        self._host.release(box.record)
        del self._boxes[box.handle]

    async def _clear(self, call: Call | None, box: Box) -> None:
        """Kill what runs in it. Then nobody uses anything of it, and all goes at the same time."""
        await demolition.kill(self._host, box, call)
        remove = demolition.remove(self._host, box, call)
        await together(remove, demolition.end_sandbox(self._host, box, call), self._last_words(box))

    async def _last_words(self, box: Box) -> None:
        """Wait for the monitor of a container that is dead, and tell everybody how it ended."""
        await demolition.end_monitor(box)
        self._monitor.forget(box.monitor)
        if not box.ended.done():
            self._ended(box, None)

    def containers(self) -> list[Container]:
        """All that exist, the exited ones included; not those that are just being created."""
        return [box.container() for box in self._boxes.values() if box.complete]

    def logs(self, handle: str, tail: int | None = None, follow: bool = False) -> AsyncIterator[LogLine]:
        """What the container wrote: its last `tail` lines (None: all), with `follow` also what it writes until its end.

        Of a container with a log rate limit only what the limit lets through, and notices of what is missing.
        Works after destroy, until the log makes room for newer ones. Raises ContainerNotFound.
        """
        return log_reading.lines(self._host.depot, handle, self._boxes.get(handle), tail, follow)

    def rootfs_names(self) -> list[str]:
        """The images this cell has."""
        return rootfs.names(self.config.image_root)

    def held_images(self) -> tuple[str, ...]:
        """Names of the images that were fetched and are still here, the one used last first; some of very many."""
        return self._store.images()

    def limits_disk(self) -> bool:
        """Whether containers with a disk limit are made here; known after `start`."""
        return self._host.volumes.limits_bytes()

    def makes_privileged(self) -> bool:
        """Whether privileged containers are made here; known after `start`."""
        return self._host.makes_privileged()

    def warnings(self) -> list[str]:
        """What makes this host less safe than it should be, in words; known after `start`."""
        return self._host.warnings()

    async def close(self) -> None:
        """Stop watching, and end sessions. Containers, their logs and their network go on. What fails ends no other."""
        async with AsyncExitStack() as last_first:
            last_first.push_async_callback(in_thread, self._host.let_go)
            last_first.callback(self._host.firewall.close)
            last_first.push_async_callback(self._host.unwatch)
            last_first.push_async_callback(self._host.close_sandboxes)
            last_first.push_async_callback(self._store.close)
            last_first.callback(self._monitor.close)
            await together(*map(session.close_all, self._boxes.values()))

    def _box(self, handle: str) -> Box:
        box = self._boxes.get(handle)
        if box is None or not box.complete:
            raise ContainerNotFound(f"find container {handle}")
        return box

    def _running(self, handle: str) -> Box:
        box = self._box(handle)
        if box.state == "exited" or box.ended.done() or box.record.phase == "destroying":
            raise IllegalTransition(f"execute a process in a container that is {box.state}")
        return box

    def _watch(self, box: Box) -> None:
        """Have `_ended` called when the container ends, also when it has already."""
        if box.record.exit is not None:
            box.state = "exited"
            box.ended.set_result(box.record.exit)
        elif not self._monitor.watch(box.monitor, lambda status: self._monitor_ended(box)):
            self._monitor_ended(box)

    def _monitor_ended(self, box: Box) -> None:
        """conmon is gone. If somebody killed it, the container goes on without it: its own end is what we wait for."""
        self._host.extras.goes_on(box.init.pid)
        if not self._monitor.watch(box.init, lambda status: self._ended(box, status)):
            self._ended(box, None)

    def _ended(self, box: Box, status: int | None) -> None:
        exit = ending.read(box, self._host, status, self.clock.now())
        self._host.extras.ended(box.init.pid)
        # What the user process left behind ends with it, unless that is what it is for. The namespaces stay: the files
        # are still there to be copied.
        if not exit.lingers:
            processes.kill_all(lambda: self._host.cgroups.processes(box.handle))
        box.state = "exited"
        if box.record.phase != "destroying":
            box.record = evolve(box.record, exit=exit)
            self._host.depot.save(box.record)
        if not box.ended.done():
            box.ended.set_result(exit)
