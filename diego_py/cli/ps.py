"""`diego ps`: what runs, in which state, since when, and why."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from diego_py.cli import instances
from diego_py.cli.lines import BAD, GOOD, Line
from diego_py.cli.session import Session, with_session
from diego_py.clients.bbs import BbsClient
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState
from diego_py.models.desired_lrp import DesiredLRP


@click.command()
@click.argument("guid", required=False)
@click.option("--domain", metavar="DOMAIN")
@click.option("--cell", "cell_id", metavar="CELL")
@click.option("--state", type=click.Choice([str(state) for state in ActualLRPState], case_sensitive=False))
@with_session
def ps(session: Session, guid: str | None, domain: str | None, cell_id: str | None, state: str | None) -> None:
    """List instances: all, or those of one LRP with what it desires."""

    async def read(bbs: BbsClient) -> tuple[DesiredLRP | None, list[ActualLRP]]:
        desired = await bbs.get(guid) if guid else None
        return desired, await bbs.actual_lrps(guid, domain=domain, cell_id=cell_id, state=state)

    desired, found = session.run("read instances", read)
    lines = [_summary(desired, found), *_outdated(desired, found)] if desired else []
    rows = instances.lines(found, datetime.now(UTC)) if found else [] if desired else ["nothing runs; diego desire -h"]
    session.say({"desired_lrp": desired, "actual_lrps": found}, [*lines, *rows])


def _outdated(desired: DesiredLRP, found: list[ActualLRP]) -> list[Line]:
    old = [(instance.index, instances.outdated(instance, desired)) for instance in found]
    return [Line(f"  {index} {told}", BAD) for index, told in old if told]


def _summary(desired: DesiredLRP, found: list[ActualLRP]) -> Line:
    wanted = desired.definition
    running = sum(1 for instance in found if instance.state is ActualLRPState.RUNNING)
    memory = f"{wanted.memory_mb} MB" if wanted.memory_mb else "unlimited memory"
    told = f"{running} of {wanted.instances} running · domain {wanted.domain} · {wanted.rootfs} · {memory}"
    return Line(f"{wanted.process_guid}: {told}", GOOD if running >= wanted.instances else BAD)
