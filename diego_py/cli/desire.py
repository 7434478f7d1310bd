"""`diego desire`: run an LRP, and return when all of it runs or the chain says why not."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any

import click

from diego_py.cli import instances
from diego_py.cli.definition import definition, definition_options
from diego_py.cli.lines import GOOD, Line
from diego_py.cli.session import Session, with_session
from diego_py.clients.bbs import OnFailure
from diego_py.errors import DiegoError, Outcome


@click.command(context_settings={"ignore_unknown_options": False})
@definition_options
@click.option(
    "--on-failure",
    type=click.Choice(["keep", "rollback"]),
    default="keep",
    show_default=True,
    help="Leave it desired, so that convergence goes on, or undo all of it.",
)
@click.option("--idempotency-key", metavar="KEY", help="The same key sent again gets the first answer. [default: new]")
@with_session
def desire(session: Session, *, on_failure: OnFailure, idempotency_key: str | None, **options: Any) -> None:
    """Run an LRP; returns when all of its instances run.

    \b
    diego desire web --rootfs busybox --port 8080 --http-check 8080 --memory 64 \\
        --env GREETING=hello -- httpd -f -p 8080 -h /etc
    diego desire -f web.json
    """
    wanted = definition(options)
    key = idempotency_key or secrets.token_hex(16)
    what = f"desire {wanted.process_guid}: {wanted.instances} instance(s)"
    try:
        placed = session.run(what, lambda bbs: bbs.desire(wanted, on_failure=on_failure, idempotency_key=key))
    except DiegoError as error:
        if error.outcome is Outcome.UNKNOWN:
            click.echo(f"  sent with --idempotency-key {key}: the same again gets the first answer", err=True)
        raise
    count = len(placed.actual_lrps)
    session.say(
        placed,
        [
            Line(f"✓ {wanted.process_guid}: {count} instance{'' if count == 1 else 's'} running", GOOD),
            *instances.lines(placed.actual_lrps, datetime.now(UTC)),
        ],
    )
    session.say_timing()
