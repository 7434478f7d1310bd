"""An extra process that somebody talks to while it runs: its input, its output, its terminal, signals, its end.

The runtime starts it and leaves. So the process is our own child (we are the subreaper), and its pipes, or its
terminal, end here without anything in between. It lives as long as its client wants: `close` kills it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field

from cells.garden import children, execution, kernel, oci, processes, release, streams, terminal
from cells.garden.box import Box
from cells.garden.host import Host
from cells.garden.processes import Process
from cells.garden.spec import Env, ProcessSpec, Window
from diego_py.errors import IllegalTransition, InvalidSpec, PoolExhausted, RuntimeFailed

SESSIONS_MAX = 64
"""Sessions of one container at a time."""
SIGNALS_MAX = 64
KILL_TIMEOUT_S = 10.0
"""How long a killed process may take to die; longer means it is stuck in the kernel."""
END_OF_INPUT = b"\x04"
"""What the user of a terminal types to say so."""


@define(eq=False)
class Session:
    """A running extra process. Whoever opened it closes it; the end of its container closes it too."""

    process: Process
    stdout: asyncio.StreamReader
    """What it writes; with a terminal this is all there is. Ends when nobody can write to it any more."""
    stderr: asyncio.StreamReader | None
    _host: Host
    _box: Box
    _base: Path
    _stdin: asyncio.StreamWriter
    _outputs: list[asyncio.BaseTransport]
    _master: int | None
    _session: int = field(init=False)
    """The kernel's session of it: with runc it leads that, with crun the leader was a process in between."""
    _pidfd: int | None = field(default=None, init=False)
    _ended: asyncio.Future[int | None] = field(factory=lambda: asyncio.get_running_loop().create_future(), init=False)

    def __attrs_post_init__(self) -> None:
        self._box.sessions.add(self)
        found = processes.stat(self.process.pid)  # A dead one too: nobody else reaps it.
        self._session = found.session if found is not None else self.process.pid
        self._pidfd = processes.open_pidfd(self.process)
        if self._pidfd is None:
            self._has_ended()
        else:
            asyncio.get_running_loop().add_reader(self._pidfd, self._has_ended)

    def _has_ended(self) -> None:
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        status = processes.reap(self.process)
        self._host.extras.ended(self.process.pid)
        if not self._ended.done():
            self._ended.set_result(status)

    async def wait(self) -> int | None:
        """Its exit status, 128 + signal when a signal ended it, as soon as it ended; None when nobody saw it.

        Any number of callers. Its output may still hold something, and goes on if a child of it has it.
        """
        return await asyncio.shield(self._ended)

    async def write(self, data: bytes) -> bool:
        """Give it input; returns when there is room for more. False when it takes none any more."""
        try:
            self._stdin.write(data)
            await self._stdin.drain()
        except (ConnectionError, RuntimeError):
            return False
        return not self._stdin.transport.is_closing()

    async def close_input(self) -> None:
        """Tell it that its input ends here. At a terminal that is a character, which it need not take for the end."""
        if self._master is not None:
            await self.write(END_OF_INPUT)
        else:
            self._stdin.close()

    def signal(self, number: int, group: bool = False) -> bool:
        """Send any signal to the process, or to its whole group; False when it has ended. Raises InvalidSpec."""
        if not 1 <= number <= SIGNALS_MAX:
            raise InvalidSpec(f"signal {number}", errors=[{"pointer": "/signal", "detail": f"1..{SIGNALS_MAX}"}])
        if self._pidfd is None:
            return False
        if not group:
            return kernel.send_signal(self._pidfd, number)
        # Not reaped, or there would be no pidfd: until then its number and its group's are nobody else's.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpgid(self.process.pid), number)
        return True

    def resize(self, window: Window) -> None:
        """Change the size of its terminal. Raises IllegalTransition when it has none, or is closed."""
        if self._master is None:
            raise IllegalTransition("resize the terminal of a process that has none")
        terminal.resize(self._master, window)

    async def close(self) -> None:
        """Kill it, with all it started that is still in its session or below it. Idempotent. Raises RuntimeFailed."""
        if self in self._box.sessions:
            await children.uninterrupted(self._close())

    def leave(self) -> None:
        """Let go of one that has ended; what it left behind goes on, and whatever that writes is lost."""
        assert self._ended.done()
        self._box.sessions.discard(self)
        self._release()

    async def _close(self) -> None:
        try:
            inside = self._host.cgroups.processes
            processes.kill_family(lambda: inside(self._box.handle), self.process, self._session)
            async with asyncio.timeout(KILL_TIMEOUT_S):
                await self.wait()
        except TimeoutError as stuck:
            raise RuntimeFailed(f"end extra process {self.process.pid}") from stuck
        finally:
            self._box.sessions.discard(self)
            self._release()

    def _release(self) -> None:
        streams.drop(self._stdin)
        for transport in self._outputs:
            transport.close()
        if self._master is not None:
            os.close(self._master)
            self._master = None
        execution.forget(self._base)

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def begin(host: Host, box: Box, process: ProcessSpec, env: Env | None = None) -> Session:
    """Start it; `env` is as in `execution.describe`. When it raises nothing of it is left.

    Raises UserNotFound, PoolExhausted, RuntimeFailed and its kinds.
    """
    if len(box.sessions) + box.runtimes.count >= SESSIONS_MAX:
        raise PoolExhausted(f"{box.handle} has its {SESSIONS_MAX} sessions", evidence={"pool": "sessions"})
    begun: list[Session] = []

    async def keep() -> None:
        begun.append(await _begin(host, box, process, env))

    try:
        await children.uninterrupted(keep())
        return begun[0]
    except asyncio.CancelledError:  # Nobody has it to close it.
        for session in begun:
            await session.close()
        raise


async def _begin(host: Host, box: Box, process: ProcessSpec, env: Env | None) -> Session:
    with _translated():
        base = await execution.describe(host, box, process, env)
        try:
            if process.terminal is None:
                return await _with_pipes(host, box, base)
            return await _with_terminal(host, box, base, process.terminal)
        except BaseException:
            execution.forget(base)
            raise


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """What the kernel refuses us. Raises PoolExhausted when no descriptor is left, else RuntimeFailed."""
    try:
        yield
    except OSError as refused:
        what = errno.errorcode.get(refused.errno or 0, "?")
        if refused.errno in (errno.EMFILE, errno.ENFILE):
            evidence = {"pool": "descriptors", "errno": what}
            raise PoolExhausted("start an extra process", evidence=evidence) from refused
        raise RuntimeFailed("start an extra process", evidence={"errno": what}) from refused


async def _with_pipes(host: Host, box: Box, base: Path) -> Session:
    kept, given = streams.pipes()
    try:
        for fd in given:  # The runtime then gives them to the user, who may want to open /dev/stdout by its name.
            os.fchown(fd, host.first_id(box), host.first_id(box))
        process = await _start(host, box, base, given)
    except BaseException:
        streams.close(kept)
        raise
    finally:
        streams.close(given)
    stdin = await streams.writer(kept[0])
    (stdout, out), (stderr, err) = await streams.reader(kept[1]), await streams.reader(kept[2])
    return Session(process, stdout, stderr, host, box, base, stdin, [out, err], None)


async def _with_terminal(host: Host, box: Box, base: Path, window: Window) -> Session:
    with contextlib.closing(terminal.ConsoleSocket(base.with_suffix(".sock"))) as console:
        nothing = asyncio.subprocess.DEVNULL
        process = await _start(host, box, base, (nothing,) * 3, "--console-socket", console.name)
        try:
            master, given, taken = _master(console, window)
        except (OSError, RuntimeFailed):
            await _give_up(host, process)
            raise
    stdin = await streams.writer(given)
    stdout, out = await streams.reader(taken)
    return Session(process, stdout, None, host, box, base, stdin, [out], master)


def _master(console: terminal.ConsoleSocket, window: Window) -> tuple[int, int, int]:
    """The end of a terminal that is ours: for its size, for its input, for its output."""
    master = console.receive()
    try:
        terminal.resize(master, window)  # Again: a runtime before 1.1.7 does not look at `consoleSize`.
        given, taken = streams.copies(master, 2)
    except OSError:
        os.close(master)
        raise
    return master, given, taken


async def _give_up(host: Host, process: Process) -> None:
    """Nobody takes this one: it ends."""
    host.extras.ended(process.pid)
    await host.extras.clear()


async def _start(host: Host, box: Box, base: Path, given: tuple[int, ...], *options: str) -> Process:
    """Have the runtime start it; returns when it was executed. Who gets the process has to make it a session."""
    process, runtime = None, None
    pid_file = base.with_suffix(".pid")
    with box.runtimes.one():
        host.extras.starts(pid_file)
        try:
            runtime = await _spawn(host, box, base, given, options)
            process = await _executed(host, base, runtime)
        finally:
            host.extras.started(pid_file, process.pid if process is not None else None)
            if process is None:
                await host.extras.clear(runtime.pid if runtime is not None else 0)
    return process


async def _spawn(
    host: Host, box: Box, base: Path, given: tuple[int, ...], options: tuple[str, ...]
) -> asyncio.subprocess.Process:
    argv = children.bound_to_us(host.runtime.exec_argv(box.handle, box.directory, base.name, "--detach", *options))
    return await children.spawn(argv, stdin=given[0], stdout=given[1], stderr=given[2], process_group=0)


async def _executed(host: Host, base: Path, runtime: asyncio.subprocess.Process) -> Process:
    try:
        async with asyncio.timeout(host.config.runtime_timeout_s):
            status = await runtime.wait()
    except TimeoutError as timeout:
        runtime.kill()
        await runtime.wait()
        raise RuntimeFailed(f"runtime exec: not started in {host.config.runtime_timeout_s:.0f} s") from timeout
    if status != 0:
        raise oci.failure("exec", oci.runtime_log(base.with_suffix(".log")), "")
    process = processes.identify(int(base.with_suffix(".pid").read_text()))
    await release.executed(process)
    return process


async def close_all(box: Box) -> None:
    """Close every session of a container. Raises RuntimeFailed."""
    await children.together(*(session.close() for session in box.sessions))
