"""`diego stop`: end one instance."""

from __future__ import annotations

import click

from diego_py.cli.lines import GOOD, Line
from diego_py.cli.session import Session, with_session


@click.command()
@click.argument("guid")
@click.argument("index", type=click.IntRange(0))
@with_session
def stop(session: Session, guid: str, index: int) -> None:
    """Stop one instance; returns when its container is gone.

    As long as the LRP is desired, convergence starts another: to have fewer, use `diego scale`.
    """
    session.run(f"stop {guid}/{index}", lambda bbs: bbs.stop(guid, index))
    session.say({"process_guid": guid, "index": index}, [Line(f"✓ {guid}/{index} is stopped", GOOD)])
    session.say_timing()
