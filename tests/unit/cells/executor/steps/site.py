"""A container of the fake garden to let steps work in, and actions of its shell."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from attrs import define, field

from cells.executor.steps import plan
from cells.executor.steps.step import Site
from cells.executor.transfers.settings import TransferSettings
from cells.executor.transfers.transfers import FileTransfers, Transfers
from cells.garden.images.unpack import UnpackLimits
from cells.garden.spec import ContainerSpec
from diego_py.models.actions import Action, CodependentAction, ParallelAction, RunAction, SerialAction, TimeoutAction
from diego_py.service.clock import SystemClock
from tests.fakes.cell import call
from tests.fakes.garden import FakeGarden

HANDLE = "h"


@define
class HeldClock(SystemClock):
    """Nobody wakes before time is let go by."""

    slept_s: list[float] = field(factory=list)
    goes_by: asyncio.Event = field(factory=asyncio.Event)

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        await self.goes_by.wait()


async def site(
    garden: FakeGarden, clock: SystemClock | None = None, transfers: FileTransfers | None = None
) -> Site:
    await garden.create(call(), ContainerSpec(HANDLE, "preloaded:base", "", idle=True))
    await garden.run(call(), HANDLE)
    clock = clock or SystemClock()
    if transfers is None:
        transfers = Transfers(garden, TransferSettings(directory=Path("/nowhere")), UnpackLimits(), clock)
    return Site(garden, HANDLE, transfers, clock, grace_s=0.05, network_env=(("ADDRESS", "here"),))


def sh(script: str, **more: Any) -> Action:
    return Action(run=RunAction(path="/bin/sh", args=("-c", script), user="root", **more))


def serial(*actions: Action) -> Action:
    return Action(serial=SerialAction(actions=actions))


def parallel(*actions: Action) -> Action:
    return Action(parallel=ParallelAction(actions=actions))


def codependent(*actions: Action) -> Action:
    return Action(codependent=CodependentAction(actions=actions))


def timeout(action: Action, milliseconds: int) -> Action:
    return Action(timeout=TimeoutAction(action=action, timeout_ms=milliseconds))


async def perform(action: Action, at: Site) -> None:
    await plan.beside(action, "APP").perform(call(), at)


def lines(garden: FakeGarden) -> list[tuple[str, str]]:
    return [(line.source, line.text) for line in garden.log_of(HANDLE)]


def scripts(garden: FakeGarden) -> list[str]:
    """Which processes were launched, in order."""
    return [launched.process.args[1] for launched in garden.launched(HANDLE)]
