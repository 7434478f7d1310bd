"""`diego deploy`: make an LRP be as a definition says, whatever it was before; create it if there is none."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click
from attrs import define, field

from diego_py.cli import instances, screen
from diego_py.cli.definition import definition, definition_options
from diego_py.cli.lines import GOOD, Line
from diego_py.cli.session import Session, with_session
from diego_py.clients.bbs import BbsClient
from diego_py.clients.bbs_answers import Placed
from diego_py.errors import DiegoError, Outcome
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState
from diego_py.models.desired_lrp import DesiredLRPDefinition

LOOK_S = 0.5
"""Between two looks at how far it is, while somebody watches."""


@define
class Progress:
    """How far a replacement is, as the line on the terminal says it."""

    wanted: DesiredLRPDefinition
    told: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.told = f"deploy {self.wanted.process_guid}: {self.wanted.instances} instance(s)"

    async def follow(self, bbs: BbsClient, done: asyncio.Event) -> None:
        """Look again and again until it is done. What cannot be read is said; it changes nothing."""
        while not done.is_set():
            try:
                revision = (await bbs.get(self.wanted.process_guid)).revision
                self.told = self.line(await bbs.actual_lrps(self.wanted.process_guid), revision)
            except DiegoError as error:
                self.told = f"deploy {self.wanted.process_guid}: how far it is cannot be read ({error.root.code})"
            try:
                async with asyncio.timeout(LOOK_S):
                    await done.wait()
            except TimeoutError:
                continue

    def line(self, rows: Sequence[ActualLRP], revision: int) -> str:
        """New instances that serve, of all that are wanted, and old ones that still do."""
        serving = [row.revision == revision for row in rows if row.state is ActualLRPState.RUNNING and row.routable]
        counted = f"{serving.count(True)} of {self.wanted.instances} new, {serving.count(False)} old still serving"
        return f"deploy {self.wanted.process_guid}: {counted}"


@click.command(context_settings={"ignore_unknown_options": False})
@definition_options
@click.option(
    "--strategy",
    type=click.Choice(["rolling", "recreate"]),
    help="Start each new instance before its old one stops, or stop all old ones first. [default: as defined]",
)
@click.option("--max-in-flight", type=click.IntRange(1, 100), default=1, show_default=True, metavar="N")
@click.option("--if-match", metavar="ETAG", help="Only if the LRP is still the one that was read.")
@click.option("--idempotency-key", metavar="KEY", help="The same key sent again gets the first answer. [default: new]")
@with_session
def deploy(
    session: Session,
    *,
    strategy: str | None,
    max_in_flight: int,
    if_match: str | None,
    idempotency_key: str | None,
    **options: Any,
) -> None:
    """Make an LRP be as this definition says; returns when all of its instances run with it.

    \b
    diego deploy -f web.json
    diego deploy -f web.json --max-in-flight 5

    New instances have to be healthy, and ready if they have readiness checks, before old ones stop. At the first one
    that is not, it ends there: the old ones go on serving, and the same again goes on from there.
    """
    wanted = definition(options)
    key = idempotency_key or secrets.token_hex(16)
    progress = Progress(wanted)

    async def work(bbs: BbsClient) -> Placed:
        done = asyncio.Event()

        async def replace() -> Placed | DiegoError:
            try:
                return await bbs.replace(
                    wanted, strategy=strategy, max_in_flight=max_in_flight, if_match=if_match, idempotency_key=key
                )
            except DiegoError as error:
                return error
            finally:
                done.set()

        async with asyncio.TaskGroup() as group:
            replacing = group.create_task(replace())
            if screen.is_watched():
                group.create_task(progress.follow(bbs, done))
        outcome = replacing.result()
        if isinstance(outcome, DiegoError):
            raise outcome
        return outcome

    try:
        placed = session.run(lambda: progress.told, work)
    except DiegoError as error:
        if error.outcome is Outcome.UNKNOWN:
            click.echo(f"  sent with --idempotency-key {key}: the same again gets the first answer", err=True)
        raise
    count = len(placed.actual_lrps)
    session.say(
        placed,
        [
            Line(f"✓ {wanted.process_guid}: {count} instance{'' if count == 1 else 's'} running as deployed", GOOD),
            *instances.lines(placed.actual_lrps, datetime.now(UTC)),
        ],
    )
    session.say_timing()
