"""One container in this process's memory: its record, its paths, and the future of its end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, evolve, field

from cells.garden.bundle.plan import Plan
from cells.garden.depot import Directory, Record
from cells.garden.extras import Runtimes
from cells.garden.network.nft_elements import Elements
from cells.garden.processes import Process
from cells.garden.sandboxes.pool import Place
from cells.garden.spec import Container, Exit, MainProcess, Network, State
from cells.garden.threads import Threads
from diego_py.call import Call
from diego_py.errors import RuntimeSilent, SandboxFailed

if TYPE_CHECKING:
    from cells.garden.files.copying import Copy
    from cells.garden.session import Session

SHARED = {"user": "user", "pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts"}
"""OCI's name of each namespace that a sandbox has, and the kernel's."""


@define(eq=False)
class Box:
    """A container and whoever waits for it. One operation at a time holds `lock`."""

    record: Record
    directory: Directory
    network: Network
    interface: str
    threads: Threads
    """Calls to the kernel about its file systems."""
    main: Box | None = None
    """Of a sidecar: the container whose sandbox it is in. Place, ports, firewall and holder are for that one to end."""
    state: State = "created"
    complete: bool = False
    """False while it is being created: nobody but its creator sees it."""
    lock: asyncio.Lock = field(factory=asyncio.Lock)
    ended: asyncio.Future[Exit] = field(factory=lambda: asyncio.get_running_loop().create_future())
    listeners: int = 0
    """How many wait to hear how it ends."""
    sessions: set[Session] = field(factory=set)
    """Extra processes that somebody talks to."""
    runtimes: Runtimes = field(factory=Runtimes)
    copies: set[Copy] = field(factory=set)
    """Children that move files in or out."""
    copies_begun: Runtimes = field(factory=Runtimes)
    """Those that are about to be among them."""
    runtime_silent: bool = False
    """Its runtime did not answer in time when it was made: what is left of that may wait in the kernel."""

    @contextmanager
    def noting_silence(self) -> Iterator[None]:
        """Around what the runtime is asked for: whoever undoes it may have been cancelled, and see no error."""
        try:
            yield
        except RuntimeSilent:
            self.runtime_silent = True
            raise

    @property
    def handle(self) -> str:
        return self.record.handle

    @property
    def holder(self) -> Process:
        """PID 1 of its namespaces. What kills it kills every process of the container."""
        return Process(self.record.holder_pid, self.record.holder_started)

    @property
    def place(self) -> Place:
        return Place(self.record.id_slot, self.record.address_number)

    @property
    def namespaces(self) -> dict[str, str]:
        """The namespaces that all processes of the container share, by OCI type, as paths for a runtime to join."""
        kinds = {kind: name for kind, name in SHARED.items() if kind != "user" or not self.record.privileged}
        return {kind: f"/proc/{self.holder.pid}/ns/{name}" for kind, name in kinds.items()}

    @asynccontextmanager
    async def turn(self, call: Call | None) -> AsyncIterator[None]:
        """Be the one operation; wait for the one before it no longer than the call may take. Raises BudgetSpent."""
        async with AsyncExitStack() as limit:
            if call is not None and self.lock.locked():
                await limit.enter_async_context(call.within_budget(f"wait for what is done to {self.handle} already"))
            await self.lock.acquire()
        try:
            yield
        finally:
            self.lock.release()

    @contextmanager
    def user_namespace(self) -> Iterator[int | None]:
        """The user namespace, if it has one, as a descriptor: mounts are shifted to its ids. Raises SandboxFailed."""
        if self.record.privileged:
            yield None
            return
        try:
            fd = os.open(self.namespaces["user"], os.O_RDONLY | os.O_CLOEXEC)
        except OSError as gone:
            raise SandboxFailed("enter the sandbox: its holder is dead", evidence={"pid": self.holder.pid}) from gone
        try:
            yield fd
        finally:
            os.close(fd)

    @property
    def monitor(self) -> Process:
        return Process(self.record.monitor_pid, self.record.monitor_started)

    @property
    def init(self) -> Process:
        return Process(self.record.init_pid, self.record.init_started)

    @property
    def etc(self) -> Path:
        """Where its /etc/hosts and the like are: one for all containers with the same address and name."""
        return (self.main or self).directory.etc

    @property
    def elements(self) -> Elements:
        return Elements(self.interface, self.network, self.handle, self.record.egress)

    async def end(self) -> Exit:
        """How the user process ended, as soon as it has, for any number of callers."""
        self.listeners += 1
        try:
            return await asyncio.shield(self.ended)
        finally:
            self.listeners -= 1

    def container(self) -> Container:
        """What others may see of it."""
        return Container(
            handle=self.handle,
            properties=dict(self.record.properties),
            network=self.network,
            state="destroying" if self.record.phase == "destroying" else self.state,
            limits=self.record.limits,
            created_at=datetime.fromisoformat(self.record.created_at),
            sandbox_of=self.record.sandbox_of,
            process=self.record.process,
            started_at=datetime.fromisoformat(self.record.started_at) if self.record.started_at else None,
        )

    def has_plan(self, plan: Plan, user: str) -> None:
        """What its own process will be; `user` as it was named."""
        identity = plan.identity
        process = MainProcess(plan.path, plan.args, plan.cwd, user, identity.uid, identity.gid)
        self.record = evolve(self.record, process=process)

    def has_holder(self, holder: Process) -> None:
        self.record = evolve(self.record, holder_pid=holder.pid, holder_started=holder.started)

    def has_processes(self, monitor: Process, init: Process) -> None:
        self.record = evolve(
            self.record,
            phase="created",
            monitor_pid=monitor.pid,
            monitor_started=monitor.started,
            init_pid=init.pid,
            init_started=init.started,
        )
