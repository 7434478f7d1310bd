"""`diego scale`: run more or fewer instances."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from diego_py.cli import instances
from diego_py.cli.lines import GOOD, Line
from diego_py.cli.session import Session, with_session


@click.command()
@click.argument("guid")
@click.argument("count", type=click.IntRange(0), metavar="INSTANCES")
@with_session
def scale(session: Session, guid: str, count: int) -> None:
    """Change how many instances run; returns when the new ones run and the surplus is gone."""
    placed = session.run(f"scale {guid} to {count}", lambda bbs: bbs.scale(guid, count))
    rows = instances.lines(placed.actual_lrps, datetime.now(UTC)) if placed.actual_lrps else []
    session.say(placed, [Line(f"✓ {guid}: {count} instance(s)", GOOD), *rows])
    session.say_timing()
