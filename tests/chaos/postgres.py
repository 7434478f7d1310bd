"""Postgres of an installation, which can be given a wall clock of its own."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

from attrs import define, field

from diego_py.embedded.postgres import EmbeddedPostgres
from diego_py.embedded.postgres_programs import Programs, ServerUser
from tests.chaos import clocks


@define
class ClockedPostgres(EmbeddedPostgres):
    """With `clock`, the server goes from its next start on by the offset in that file."""

    clock: Path | None = field(default=None, init=False)

    async def _launch(self, programs: Programs, user: ServerUser) -> asyncio.subprocess.Process:
        return await super()._launch(programs if self.clock is None else self._clocked(programs, self.clock), user)

    def _clocked(self, programs: Programs, clock: Path) -> Programs:
        """A program in the server's place that becomes it. Whoever starts it must keep the machine's clock: the
        library shares memory with those after it, and these are another user's."""
        directory = self.home / "clocked"
        directory.mkdir(mode=0o711, exist_ok=True)
        directory.chmod(0o711)
        words = ("env", *(f"{name}={value}" for name, value in clocks.environment(clock).items()))
        script = directory / "postgres"
        script.write_text(f'#!/bin/sh\nexec {shlex.join((*words, str(programs.postgres)))} "$@"\n')
        script.chmod(0o755)
        return Programs(directory)
