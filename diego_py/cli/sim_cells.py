"""`diego sim-cells`: cells that only remember their containers, to try the API and to measure it. Needs no root."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click
import msgspec

from diego_py.cli.session import Session, with_session

PACKAGE = "cells.simulated"


@click.command("sim-cells")
@click.option("--cells", type=click.IntRange(1, 100_000), default=3, show_default=True)
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="Of all cells. 0 takes a free one.")
@click.option("--prefix", default="sim", show_default=True, help="Of their names: PREFIX-00001 and so on.")
@click.option("--zones", type=click.IntRange(1), default=3, show_default=True)
@click.option("--memory", "memory_mb", type=click.IntRange(1), multiple=True, metavar="MB", help="[default: 16384]")
@click.option("--disk", "disk_mb", type=click.IntRange(1), multiple=True, metavar="MB", help="[default: 102400]")
@click.option("--containers", type=click.IntRange(1), default=250, show_default=True, help="Of each cell, at most.")
@click.option("--image", multiple=True, metavar="NAME", help="A `preloaded:` rootfs. [default: busybox, base]")
@click.option("--latency", multiple=True, metavar="OP=MEDIAN[,P99]", help="Milliseconds of create, run, stop, destroy.")
@click.option("--failures", multiple=True, metavar="OP=RATE", help="Which part of the calls fails, from 0 to 1.")
@click.option("--report-interval", type=click.FloatRange(0.1), default=5.0, show_default=True, metavar="SECONDS")
@click.option("--seed", type=int, default=1, show_default=True, help="Of all chance.")
@with_session
def sim_cells(session: Session, /, **options: object) -> None:
    """Run simulated cells that report to the BBS, until Ctrl-C.

    They answer as real ones do, with the failures that you ask for, but no process ever runs. Sizes given several
    times are dealt out by chance. Of `sh -c` they understand: echo, sleep, exit N, kill -N $$, trap '' TERM.
    """
    _become(msgspec.json.encode(_settings(session.url, options)))


def _settings(bbs_url: str, options: dict[str, object]) -> dict[str, object]:
    """As cells/simulated/config.py takes them; what is empty keeps its default."""
    named = {
        "cells": options["cells"],
        "prefix": options["prefix"],
        "bbs_urls": [bbs_url],
        "listen_port": options["port"],
        "zones": options["zones"],
        "memory_mb": options["memory_mb"],
        "disk_mb": options["disk_mb"],
        "containers_max": options["containers"],
        "images": options["image"],
        "latencies": _pairs(options["latency"]),
        "failure_rates": {op: _rate(text) for op, text in _pairs(options["failures"]).items()},
        "report_interval_s": options["report_interval"],
        "seed": options["seed"],
    }
    return {name: value for name, value in named.items() if value not in ((), {})}


def _pairs(texts: object) -> dict[str, str]:
    assert isinstance(texts, tuple)
    if wrong := [text for text in texts if "=" not in text]:
        raise click.BadParameter(f"{wrong[0]}: it takes OPERATION=VALUE")
    return dict(text.split("=", 1) for text in texts)


def _rate(text: str) -> float:
    try:
        return float(text)
    except ValueError as wrong:
        raise click.BadParameter(f"{text} is not a number") from wrong


def _become(settings: bytes) -> NoReturn:
    """The cells' own process takes our place: the command loads none of their code, and Ctrl-C reaches them alone."""
    reading, writing = os.pipe()
    os.write(writing, settings)
    os.close(writing)
    os.dup2(reading, sys.stdin.fileno())
    os.execv(sys.executable, [sys.executable, "-m", PACKAGE, "--config", "-"])
