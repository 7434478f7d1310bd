"""`diego cells`: the cells, what they have and what is left of it."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from diego_py.cli import instances
from diego_py.cli.session import Session, with_session
from diego_py.clients.bbs_answers import CellStatus

TITLES = ("CELL", "ZONE", "STATE", "SEEN", "MEMORY_MB", "DISK_MB", "CONTAINERS", "INSTANCES", "ADDRESS", "URL")


@click.group(invoke_without_command=True)
@with_session
@click.pass_context
def cells(context: click.Context, session: Session) -> None:
    """List the cells: free of all, live or not."""
    if context.invoked_subcommand is None:
        found = session.run("read cells", lambda bbs: bbs.cells())
        now = datetime.now(UTC)
        rows = [_row(cell, now) for cell in found]
        session.say_table({"items": found}, TITLES, rows, "no cell has ever reported; start one: diego up")


@cells.command()
@click.argument("cell_id")
@with_session
def forget(session: Session, cell_id: str) -> None:
    """Forget a cell that is dead for good."""
    session.run(f"forget {cell_id}", lambda bbs: bbs.forget_cell(cell_id))
    session.say({"cell_id": cell_id}, [f"✓ {cell_id} is forgotten"])


def _row(cell: CellStatus, now: datetime) -> list[str]:
    state = "dead" if not cell.live else "draining" if cell.draining else "live"
    free, all_ = cell.available, cell.capacity
    return [
        cell.cell_id,
        cell.zone or "-",
        state,
        instances.ago(datetime.fromisoformat(cell.seen_at), now) if cell.seen_at else "-",
        f"{free.memory_mb} of {all_.memory_mb}",
        f"{free.disk_mb} of {all_.disk_mb}",
        f"{free.containers} of {all_.containers}",
        str(cell.instances),
        cell.address or "-",
        cell.url or "-",
    ]
