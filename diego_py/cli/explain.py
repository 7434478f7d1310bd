"""`diego explain`: where an LRP stands and why, also after its cell or the LRP itself is gone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from diego_py.cli import draw, instances
from diego_py.cli.lines import BAD, DIM, GOOD, HEAD, Line
from diego_py.cli.session import Session, with_session
from diego_py.clients.bbs import BbsClient
from diego_py.clients.bbs_answers import StoredFailure
from diego_py.errors import DesiredLRPNotFound
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, Presence
from diego_py.models.desired_lrp import DesiredLRP


@click.command()
@click.argument("guid")
@click.option("--limit", type=click.IntRange(1, 100), default=5, show_default=True, help="So many stored failures.")
@with_session
def explain(session: Session, guid: str, limit: int) -> None:
    """Say where an LRP stands and draw its stored failures, the newest last.

    Failures are kept for 30 days, whatever becomes of the LRP, its containers and its cell.
    """

    async def read(bbs: BbsClient) -> tuple[DesiredLRP | None, list[ActualLRP], list[StoredFailure]]:
        stored = await bbs.failures(guid, limit=limit)
        try:
            desired = await bbs.get(guid)
        except DesiredLRPNotFound:
            if not stored:
                raise
            desired = None
        return desired, await bbs.actual_lrps(guid), stored

    desired, found, stored = session.run(f"read {guid}", read)
    value = {"desired_lrp": desired, "actual_lrps": found, "failures": stored}
    session.say(value, [*standing(guid, desired, found, datetime.now(UTC)), *history(stored)])


def standing(guid: str, desired: DesiredLRP | None, found: Sequence[ActualLRP], now: datetime) -> list[Line]:
    """Each instance now: state, since when, why, and when it is tried again."""
    if desired is None:
        return [Line(f"{guid} is not desired any more", HEAD)]
    lines = [Line(f"{guid}: {desired.definition.instances} instance(s) desired", HEAD)]
    for instance in sorted(found, key=lambda instance: (instance.index, instance.presence)):
        lines.append(_state(instance, now))
        for why in (instances.reason(instance, now, characters=2_000), instances.outdated(instance, desired)):
            if why:
                lines.append(Line(f"     {why}"))
    return lines


def history(stored: Sequence[StoredFailure]) -> list[Line]:
    """The stored failures as chains, the oldest first."""
    if not stored:
        return [Line("no failure is stored", DIM)]
    lines = []
    for failure in reversed(stored):
        phase = f" ({failure.phase})" if failure.phase else ""
        where = f" on {failure.cell_id}" if failure.cell_id else ""
        lines += [Line(""), *draw.failure(failure.document, at=f"{_second(failure.created_at)}{where}{phase}  ")]
    return lines


def _state(instance: ActualLRP, now: datetime) -> Line:
    since = f"since {instance.since:%Y-%m-%d %H:%M:%S} UTC ({instances.ago(instance.since, now)})"
    where = f" on {instance.cell_id}" if instance.cell_id else ""
    if instance.presence is not Presence.ORDINARY:
        where += f" ({instance.presence})"
    good = instance.state is ActualLRPState.RUNNING
    return Line(f"  {instance.index}  {instance.state}{where} {since}", GOOD if good else BAD)


def _second(moment: str) -> str:
    """A stored time to the second; microseconds help nobody at night."""
    return f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M:%S} UTC"
