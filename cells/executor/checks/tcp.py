"""The TCP check: a connection to the port opens in time."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from cells.executor.checks.result import CheckResult
from diego_py.models.checks import CHECK_TIMEOUT_MS_DEFAULT, TCPCheck

KIND = "tcp"


async def check_tcp(address: str, check: TCPCheck) -> CheckResult:
    """Connect once and hang up."""
    timeout_ms = check.connect_timeout_ms or CHECK_TIMEOUT_MS_DEFAULT
    target = f"{address}:{check.port}"
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            _, writer = await asyncio.open_connection(address, check.port)
    except TimeoutError:
        return CheckResult(KIND, target, False, f"no connection within {timeout_ms} ms")
    except OSError as refused:
        reason = os.strerror(refused.errno) if refused.errno else type(refused).__name__
        return CheckResult(KIND, target, False, f"connect: {reason}")
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return CheckResult(KIND, target, True, "connected")
