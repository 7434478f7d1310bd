"""Processes of ours that are an installation's: started one after another until each answers, ended with us."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from attrs import define, field

from diego_py.clients.bbs import BbsClient
from diego_py.embedded.cluster_layout import ClusterError
from diego_py.errors import DiegoError

READY_TIMEOUT_S = 60.0
READY_POLL_S = 0.02
STOP_TIMEOUT_S = 30.0
LOG_TAIL_BYTES = 4 * 1024


@define
class Child:
    """One process."""

    name: str
    url: str
    log_path: Path
    process: asyncio.subprocess.Process
    ending: bool = False
    """We have asked it to end: its end is no failure."""

    @property
    def ended(self) -> bool:
        return self.process.returncode is not None

    def log_tail(self) -> str:
        """The last lines of its log."""
        return tail(self.log_path)


@define
class Children:
    """All of them by name. Started from the main thread; on Linux they end with the thread that started them."""

    ready_timeout_s: float = READY_TIMEOUT_S
    """How long each may take until it is ready, and whatever is waited for of it after that."""
    _children: dict[str, Child] = field(factory=dict, init=False)

    def all(self) -> tuple[Child, ...]:
        return tuple(self._children.values())

    def get(self, name: str) -> Child:
        return self._children[name]

    def failed(self) -> Child | None:
        """One that ended and was not asked to; each is told once."""
        for child in self.all():
            if child.ended and not child.ending:
                child.ending = True
                return child
        return None

    async def start(
        self, name: str, package: str, config: Path, settings: Mapping[str, Any], url: str, log_path: Path
    ) -> Child:
        """Start `python -m PACKAGE --config CONFIG` with these settings in it; return when it says it is ready.

        Raises ClusterError when it ends first, or takes too long.
        """
        _write(config, settings)
        child = await self._spawn(name, package, config, url, log_path)
        await self.until(child, "ready", lambda: _is_ready(url))
        return child

    async def _spawn(self, name: str, package: str, config: Path, url: str, log_path: Path) -> Child:
        before = self._children.get(name)
        if before is not None and not before.ended:
            raise ClusterError(f"start {name}: it is running as process {before.process.pid}")
        argv: Sequence[str] = (*_ends_with_us(name), sys.executable, "-m", package, "--config", str(config))
        log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in a terminal is for us: we stop the children in their order.
                start_new_session=True,
            )
        finally:
            os.close(log)
        child = self._children[name] = Child(name, url, log_path, process)
        return child

    async def until(self, child: Child, what: str, holds: Callable[[], Awaitable[bool]]) -> None:
        """Poll until `holds()` is true. Raises ClusterError when the child ends first, or takes too long."""
        try:
            async with asyncio.timeout(self.ready_timeout_s):
                while not await holds():
                    if child.ended:
                        raise _failure(child, f"it ended with status {child.process.returncode}")
                    await asyncio.sleep(READY_POLL_S)
        except TimeoutError as timeout:
            raise _failure(child, f"not {what} within {self.ready_timeout_s:.0f} s") from timeout

    async def kill(self, name: str) -> None:
        """End one at once."""
        child = self._children[name]
        child.ending = True
        with contextlib.suppress(ProcessLookupError):
            child.process.kill()
        await child.process.wait()

    async def end(self, children: Sequence[Child]) -> None:
        """Ask all to end, wait, and kill those that do not."""
        running = [child for child in children if not child.ended]
        for child in running:
            child.ending = True
            with contextlib.suppress(ProcessLookupError):
                child.process.send_signal(signal.SIGTERM)
        for child in running:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await child.process.wait()
            if not child.ended:
                await self.kill(child.name)


def _write(path: Path, settings: Mapping[str, Any]) -> None:
    """A configuration, for the process only: a database address may hold a password."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(settings), indent=2))


def tail(log_path: Path) -> str:
    """The last lines of a log; none when there is no log."""
    return log_path.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace") if log_path.exists() else ""


def _ends_with_us(name: str) -> tuple[str, ...]:
    """What makes a process end when we do, however we end. Only Linux has it."""
    if sys.platform != "linux":
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise ClusterError(f"start {name}: no setpriv program; install util-linux")
    return (setpriv, "--pdeathsig=TERM")


def _failure(child: Child, reason: str) -> ClusterError:
    child.ending = True
    return ClusterError(f"start {child.name}: {reason}; {child.log_path} ends:\n{child.log_tail()}")


async def _is_ready(url: str) -> bool:
    try:
        async with BbsClient(url) as anybody:
            await anybody.ready()
    except DiegoError:
        return False
    return True
