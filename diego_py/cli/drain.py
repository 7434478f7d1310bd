"""`diego drain`: empty a cell, and give it work again."""

from __future__ import annotations

import click

from diego_py.cli.lines import GOOD, Line
from diego_py.cli.session import Session, with_session


@click.command()
@click.argument("cell_id", metavar="CELL")
@click.option("--timeout", type=click.IntRange(1, 3_000), default=600, show_default=True, metavar="SECONDS")
@click.option("--undo", is_flag=True, help="Give the cell work again.")
@with_session
def drain(session: Session, cell_id: str, timeout: int, undo: bool) -> None:
    """Empty a cell: it takes no new work, and each of its instances runs elsewhere before it stops here.

    Returns when the cell is empty. What finds no place in time goes on running there, and the chain says why; the cell
    takes no work until `diego drain CELL --undo`, also when it starts again.
    """
    if undo:
        session.run(f"readmit {cell_id}", lambda bbs: bbs.readmit(cell_id))
        session.say({"cell_id": cell_id, "draining": False}, [Line(f"✓ {cell_id} takes work again", GOOD)])
        return
    moved = session.run(f"empty {cell_id}", lambda bbs: bbs.evacuate(cell_id, timeout_s=timeout))
    told = f"✓ {cell_id} is empty: {moved} instance{'' if moved == 1 else 's'} moved"
    session.say({"cell_id": cell_id, "moved": moved}, [Line(told, GOOD)])
