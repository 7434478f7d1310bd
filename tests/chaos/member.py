"""One process of an installation, on a machine of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from signal import Signals

from attrs import define, field

from tests.chaos.harms import Harms
from tests.chaos.network import Host

END_TIMEOUT_S = 30.0
SAID = 2_000
"""Characters of a log that are told."""


@define
class Member:
    """One process on a host of its own."""

    name: str
    host: Host
    url: str
    argv: tuple[str, ...]
    log_path: Path
    harms: Harms
    env: Mapping[str, str] = field(factory=dict)
    process: asyncio.subprocess.Process | None = field(default=None, init=False)

    async def start(self) -> None:
        """Start it, again if it has ended."""
        assert self.process is None, f"{self.name} runs"
        with self.log_path.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.host.command("setpriv", "--pdeathsig=KILL", *self.argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.env},
                start_new_session=True,
            )

    async def kill(self) -> None:
        """SIGKILL; returns when it is dead."""
        await self._end(signal.SIGKILL)

    async def terminate(self) -> int:
        """SIGTERM; returns its exit status."""
        return await self._end(signal.SIGTERM)

    async def stop(self) -> str:
        """SIGTERM if it runs, frozen or not. Returns what it said last if it had ended of itself, else nothing."""
        if self.process is None:
            return ""
        if (status := self.process.returncode) is not None:
            said = self.log_path.read_text(errors="replace")[-SAID:]
            return f"{self.name} had ended of itself with exit status {status}: {said}"
        self.thaw()
        await self.terminate()
        return ""

    def freeze(self) -> None:
        """SIGSTOP: it hears and says nothing until `thaw`."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def signal(self, number: Signals) -> None:
        assert self.process is not None, f"{self.name} does not run"
        self.harms.begin()
        self.process.send_signal(number)

    async def _end(self, number: Signals) -> int:
        self.harms.begin()
        process, self.process = self.process, None
        assert process is not None, f"{self.name} does not run"
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                return await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise AssertionError(f"{self.name} did not end within {END_TIMEOUT_S:g} s of {number.name}") from None
