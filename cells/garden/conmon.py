"""conmon, which starts the runtime and holds the container's output and its exit: begun early, told to go on later.

It outlives this process by design: it has no parent-death signal, its own session, and no pipe to us.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import define, field

from cells.garden import children, configuration, streams, stuck
from cells.garden.depot import Directory
from cells.garden.monitor import gone
from cells.garden.processes import Process, descendants, identify, kill
from diego_py.errors import RuntimeSilent

LOG_MODE = 0o600
SYNC_MESSAGE_BYTES_MAX = 64 * 1024
GIVE_UP_S = 10.0
"""How long a runtime may take to see that it has no configuration."""
END_S = 0.5
"""How long a runtime that was killed is waited for. One that waits in the kernel does not die yet."""


@define(eq=False)
class Conmon:
    """One that waits, before it has the runtime do anything. Whoever began it tells it to go, or gives it up."""

    _directory: Directory
    _parent: subprocess.Popen[bytes]
    """It forks once it may go, and ends; what stays is its child."""
    _go: int
    _receive: int
    _pipe: configuration.Pipe | None
    """The runtime was begun already, and waits for what comes from here."""
    waits: bool = field(default=True, init=False)

    async def go(self, config: bytes, limit_s: float) -> dict[str, Any]:
        """Have the runtime create the container; answers what is said of that. Must not be cancelled.

        Raises OSError, and RuntimeSilent when nothing is said for so long; it is killed then, and so is the runtime.
        """
        if self._pipe is None:
            configuration.write(self._directory.bundle, config)
            self._begin()
        else:
            self._pipe.give(config)
        return await self._answered(limit_s)

    async def _answered(self, limit_s: float) -> dict[str, Any]:
        self.waits = False
        try:
            return await self._said(limit_s)
        finally:
            if self._pipe is not None:
                self._pipe.close()
            await children.ended(self._parent)

    def _begin(self) -> None:
        try:
            with contextlib.suppress(BrokenPipeError):  # It ended; what it left to read says no more than that.
                os.write(self._go, b".")
        finally:
            os.close(self._go)

    async def give_up(self) -> None:
        """End it, if it still waits. Idempotent. Must not be cancelled."""
        if self.waits and self._pipe is not None:
            self._pipe.refuse()
            with contextlib.suppress(RuntimeSilent):  # Then it was killed.
                await self._answered(GIVE_UP_S)
            await gone(lasting(self._directory))
        elif self.waits:
            self.waits = False
            self._parent.kill()
            # Only now: at the end of this pipe it would go on as if it were told to.
            await children.ended(self._parent)
            os.close(self._go)
            os.close(self._receive)

    async def _said(self, limit_s: float) -> dict[str, Any]:
        """What it says on its pipe: one JSON object a line; the end of the pipe when it died."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=SYNC_MESSAGE_BYTES_MAX)
        pipe = os.fdopen(self._receive, "rb")
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        try:
            async with asyncio.timeout(limit_s):
                line = await reader.readline()
        except (TimeoutError, ValueError) as nothing:
            evidence = await _end(lasting(self._directory))
            raise RuntimeSilent(f"runtime create: no answer in {limit_s:.1f} s", evidence=evidence) from nothing
        finally:
            transport.close()
        try:
            said = json.loads(line)
        except ValueError:
            said = {"message": line.decode(errors="replace")}
        return said if isinstance(said, dict) else {"message": str(said)}


def begin(argv: Sequence[str], directory: Directory, early: bool) -> Conmon:
    """Have one that waits; with `early` its runtime is begun too, and waits. Raises RuntimeMissing, OSError."""
    receive, send, wait, go = streams.all_or_none(2, lambda: os.pipe2(os.O_CLOEXEC))
    pipes = {"_OCI_SYNCPIPE": str(send), "_OCI_STARTPIPE": str(wait)}
    pipe = None
    try:
        if early:
            pipe = configuration.pipe(directory.bundle)
        os.close(_log(directory.runtime_log))  # The runtime goes on with a file that is there.
        with open(_log(directory.path / "conmon.log"), "wb") as stderr:
            parent = children.begin(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                cwd=directory.bundle,
                env={"PATH": os.environ.get("PATH", os.defpath), **pipes},
                pass_fds=(send, wait),
                start_new_session=True,
            )
    except BaseException:
        os.close(receive)
        os.close(go)
        if pipe is not None:
            pipe.close()
        raise
    finally:
        os.close(send)
        os.close(wait)
    begun = Conmon(directory, parent, go, receive, pipe)
    if early:
        begun._begin()
    return begun


def _log(path: Path) -> int:
    """An empty file, open for writing. Garden reads it, and nobody else: what failed may name what is the user's."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, LOG_MODE)


def lasting(directory: Directory) -> Process:
    """The process that stays, as it wrote its pid itself."""
    try:
        return identify(int((directory.path / "conmon.pid").read_text()))
    except (OSError, ValueError):
        return Process(0, 0)


async def _end(monitor: Process) -> dict[str, Any]:
    """Kill a monitor and its runtime. Answers what they waited for; whoever still does is for the undoing."""

    def look() -> tuple[list[Process], dict[str, Any]]:
        pids = descendants([monitor.pid]) if monitor.pid > 0 else []
        return [identify(pid) for pid in pids], stuck.by_processes(pids)

    runtime, evidence = await children.in_thread(look)
    for process in (monitor, *runtime):
        kill(process)
    await gone(monitor)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_S):
            # With its parent gone it is ours, and shows in no list that demolishing reads: it has to be reaped here.
            await asyncio.gather(*map(gone, runtime))
    return evidence
