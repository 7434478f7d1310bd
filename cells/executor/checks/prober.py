"""Carries out checks of every kind against one container."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import assert_never

import aiohttp
from attrs import define, field

from cells.executor.backend import ContainerBackend
from cells.executor.checks import http
from cells.executor.checks.command import check_command
from cells.executor.checks.http import check_http
from cells.executor.checks.result import CheckResult
from cells.executor.checks.tcp import check_tcp
from cells.garden.spec import Container
from diego_py.call import Call
from diego_py.models.checks import Check, CommandCheck, HTTPCheck, TCPCheck


@define
class Prober:
    """Asks instances whether they are healthy. Never raises for one that is not."""

    garden: ContainerBackend
    _session: aiohttp.ClientSession | None = field(default=None, init=False)

    async def start(self) -> None:
        """Nothing to do: the session is made with the first HTTP check."""

    async def stop(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def probe(self, call: Call, container: Container, check: Check) -> CheckResult:
        """One check, once."""
        address = container.network.address
        match kind := check.only():
            case HTTPCheck():
                return await check_http(self._http(), address, kind)
            case TCPCheck():
                return await check_tcp(address, kind)
            case CommandCheck():
                return await check_command(call, self.garden, container.handle, kind)
            case _:
                assert_never(kind)

    async def probe_all(self, call: Call, container: Container, checks: Sequence[Check]) -> CheckResult:
        """All checks at once: the first that failed, or the last if all passed."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.probe(call, container, check)) for check in checks]
        results = [task.result() for task in tasks]
        return next((result for result in results if not result.ok), results[-1])

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = http.session()
        return self._session
