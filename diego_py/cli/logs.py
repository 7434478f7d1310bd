"""`diego logs`: what an instance wrote."""

from __future__ import annotations

import click

from diego_py.cli.session import Session, json_text, with_session
from diego_py.clients.bbs import BbsClient
from diego_py.clients.bbs_answers import LogLine


@click.command()
@click.argument("guid")
@click.argument("index", type=click.IntRange(0), default=0)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is to come.")
@click.option("--tail", type=click.IntRange(0), default=200, show_default=True, metavar="N", help="The last N lines.")
@click.option("-t", "--timestamps", is_flag=True, help="Put the time before each line.")
@with_session
def logs(session: Session, guid: str, index: int, follow: bool, tail: int, timestamps: bool) -> None:
    """Read what an instance wrote; what it wrote to standard error goes to standard error.

    Works for an instance that has ended, too, for as long as its cell keeps the log.
    """

    async def read(bbs: BbsClient) -> None:
        async for line in bbs.logs(guid, index, tail=tail, follow=follow):
            print_line(line, session.is_json, timestamps)

    session.run(f"logs {guid}/{index}", read, quiet=True)


def print_line(line: LogLine, as_json: bool, timestamps: bool) -> None:
    if as_json:
        click.echo(json_text(line, indent=0))
        return
    before = f"{line.at} " if timestamps and line.at else ""
    click.echo(before + line.text, err=line.stream == "stderr")
