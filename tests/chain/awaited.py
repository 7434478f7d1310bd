"""Waiting for a condition, with a limit, and with a word on what was waited for when it does not come true."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

LIMIT_S = 45.0
POLL_S = 0.01
VISIT_S = 4.0
"""A visitor waits so long for an answer: who serves has answered by then, on a busy machine too."""


async def until(what: str, look: Callable[[], Awaitable[T | None]], limit_s: float = LIMIT_S) -> T:
    """What `look` finds as soon as that is something (not None, not False, not empty)."""
    seen: T | None = None
    try:
        async with asyncio.timeout(limit_s):
            while True:
                if seen := await look():
                    return seen
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise AssertionError(f"not within {limit_s:g} s: {what}; last seen: {seen!r}") from None


async def until_true(what: str, holds: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    """The same for a condition that needs no waiting itself."""

    async def look() -> bool:
        return bool(holds())

    await until(what, look, limit_s)


async def process_of(*argv: str) -> int:
    """The process with exactly these arguments, as soon as there is one."""

    async def look() -> int:
        return next(iter(processes_of(*argv)), 0)

    return await until(f"a process {' '.join(argv)}", look)


def processes_of(*argv: str) -> list[int]:
    """Processes with exactly these arguments."""
    wanted = b"\0".join(word.encode() for word in argv) + b"\0"
    return [pid for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()) if _arguments(pid) == wanted]


def _arguments(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
