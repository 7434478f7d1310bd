"""`diego plan`: what the auction would do with an LRP now. Starts nothing."""

from __future__ import annotations

from typing import Any

import click

from diego_py.cli import draw
from diego_py.cli.definition import definition, definition_options
from diego_py.cli.lines import BAD, DIM, GOOD, Line
from diego_py.cli.session import EXIT_STATUS, Session, with_session


@click.command()
@definition_options
@with_session
@click.pass_context
def plan(context: click.Context, /, session: Session, **options: Any) -> None:
    """Say where the auction would place an LRP, and why not elsewhere.

    Takes what `desire` takes. Exit status 12 when an instance finds no cell.
    """
    wanted = definition(options)
    assignments = session.run(f"plan {wanted.process_guid}", lambda bbs: bbs.plan(wanted))
    lines: list[Line] = []
    for assignment in assignments:
        name = f"{wanted.process_guid}/{assignment.index}"
        if assignment.cell_id is None:
            lines.append(Line(f"✗ {name} finds no cell", BAD))
        else:
            lines.append(Line(f"✓ {name} → {assignment.cell_id}", GOOD))
        lines += draw.placement(assignment.placement)
    if 0 < len(assignments) < wanted.instances:
        lines.append(Line(f"… and {wanted.instances - len(assignments)} more instances", DIM))
    session.say({"assignments": assignments}, lines or [Line("no instance is wanted")])
    if any(assignment.cell_id is None for assignment in assignments):
        context.exit(EXIT_STATUS["capacity"])
