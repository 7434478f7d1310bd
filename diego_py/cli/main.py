"""The `diego` command: its group, and the way from any failure to what is printed and to the exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from diego_py import __version__
from diego_py.cli.session import JSON, TABLE, Session
from diego_py.clients.bbs import URL_DEFAULT
from diego_py.errors import DiegoError

COMMANDS = {
    "up": "Run Postgres, a BBS and cells on this machine.",
    "sim-cells": "Run cells that only remember their containers, to try and to measure the API.",
    "desire": "Run an LRP; returns when all of its instances run.",
    "deploy": "Make an LRP be as a definition says, instance by instance.",
    "plan": "Say where the auction would place an LRP, and why not elsewhere.",
    "ps": "List what runs, with state, since when, and why.",
    "logs": "Read what an instance wrote.",
    "explain": "Say where an LRP stands and draw its stored failures.",
    "scale": "Change how many instances run; returns when it is so.",
    "stop": "Stop one instance; convergence starts another.",
    "restart": "Stop one instance and start it again.",
    "delete": "Remove an LRP; returns when its containers are gone.",
    "task": "Run something once, with its result; list, show, cancel and delete tasks.",
    "cells": "List the cells and what they have left.",
    "drain": "Empty a cell; returns when all of its instances run elsewhere.",
    "rootfs": "Import the root file systems that cells offer.",
    "doctor": "Check whether this machine can be a cell.",
}
"""Each in the file of its name, loaded when it is called: a help text loads none of them."""

INTERRUPTED = 130

HELP = """Run containers; the answer is the outcome.

Each command returns when what it asks for is true, or prints the whole chain of causes.

\b
Exit status: 0 done · 2 wrong command line · 130 interrupted; else by whose fault it is:
10 caller (the request) · 11 app · 12 capacity · 13 platform · 14 dependency (Postgres)
"""


class Commands(click.Group):
    """Finds commands by their file, and answers failures."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(import_module(f"diego_py.cli.{name}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DiegoError as error:
            ctx.exit(ctx.ensure_object(Session).say_failure(error))


@click.group(cls=Commands, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="diego")
@click.option("-o", "--output", type=click.Choice([TABLE, JSON]), default=TABLE, help="For people, or for programs.")
@click.option("--bbs", metavar="URL", envvar="DIEGO_BBS", default=URL_DEFAULT, show_default=True)
@click.option("--wait", type=click.IntRange(1, 3600), metavar="SECONDS", help="Wait this long; the work then goes on.")
@click.pass_context
def diego(ctx: click.Context, output: str, bbs: str, wait: int | None) -> None:
    ctx.obj = Session(bbs, output, wait)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status."""
    try:
        status = diego.main(args=list(arguments), prog_name="diego", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.ClickException as wrong:
        wrong.show()
        return wrong.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("\ninterrupted; a request that was sent goes on at the BBS: diego ps", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has read enough; without this Python complains at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def main() -> None:
    """The entry point of the `diego` command."""
    sys.exit(run(sys.argv[1:]))
