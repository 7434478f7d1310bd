"""`diego restart`: stop an instance and start it again, or each instance in turn."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from diego_py.cli import instances
from diego_py.cli.lines import GOOD, Line
from diego_py.cli.session import Session, with_session
from diego_py.clients.bbs import BbsClient
from diego_py.models.actual_lrp import ActualLRP


@click.command()
@click.argument("guid")
@click.argument("index", type=click.IntRange(0), required=False)
@with_session
def restart(session: Session, guid: str, index: int | None) -> None:
    """Restart one instance, or without INDEX all of them, one after the other; stops at the first that fails."""

    async def work(bbs: BbsClient) -> list[ActualLRP]:
        wanted = [index] if index is not None else range((await bbs.get(guid)).definition.instances)
        return [await bbs.restart(guid, one) for one in wanted]

    restarted = session.run(f"restart {guid}" + (f"/{index}" if index is not None else ""), work)
    rows = instances.lines(restarted, datetime.now(UTC)) if restarted else []
    session.say({"actual_lrps": restarted}, [Line(f"✓ {guid}: {len(restarted)} restarted", GOOD), *rows])
    session.say_timing()
