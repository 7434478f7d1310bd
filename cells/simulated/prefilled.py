"""Instances that simulated cells have from the start, by number: which they are, and where. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final

from cells.executor.plan import Plan
from cells.rep.blueprint import Blueprint, blueprint_of
from diego_py.models.actions import Action, RunAction
from diego_py.models.desired_lrp import DesiredLRPDefinition
from diego_py.models.identifiers import Domain, InstanceGuid, ProcessGuid
from diego_py.models.work import Work

EACH: Final = 100
"""Instances of an LRP."""
START_TIMEOUT_S: Final = 60.0


@cache
def blueprint(lrp: int) -> Blueprint:
    """The same, as far as it goes for all instances."""
    return blueprint_of(definition(lrp), START_TIMEOUT_S)


def definition(lrp: int) -> DesiredLRPDefinition:
    """Of the LRP of this number."""
    return DesiredLRPDefinition(
        process_guid=ProcessGuid(f"fill-{lrp:06d}"),
        domain=Domain("bench"),
        rootfs="preloaded:busybox",
        instances=EACH,
        memory_mb=16,
        action=Action(run=RunAction(path="/bin/sleep", args=("1000",), user="root")),
    )


def on_cell(cell: int, cells: int, instances: int) -> Iterator[Plan]:
    """What runs on the cell of this number, counted from 1: every so many-th instance."""
    for number in range(cell - 1, instances, cells):
        of_all = blueprint(number // EACH)
        wanted = of_all.definition
        work = Work(
            process_guid=wanted.process_guid,
            index=number % EACH,
            domain=wanted.domain,
            instance_guid=InstanceGuid(f"fill-{number:08d}"),
            definition=wanted,
        )
        yield of_all.plan(work)
