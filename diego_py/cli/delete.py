"""`diego delete`: remove LRPs with all of their containers."""

from __future__ import annotations

import click

from diego_py.cli.lines import GOOD, Line
from diego_py.cli.session import Session, with_session


@click.command()
@click.argument("guid")
@with_session
def delete(session: Session, guid: str) -> None:
    """Remove an LRP; returns when its containers are gone."""
    deleted = session.run(f"delete {guid}", lambda bbs: bbs.delete(guid))
    session.say(deleted, [Line(f"✓ {guid} is gone; {deleted.stopped} container(s) stopped", GOOD)])
    session.say_timing()
