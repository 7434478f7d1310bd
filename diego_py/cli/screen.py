"""Where lines are shown: results on standard output, all about the request on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import click

from diego_py.cli import draw
from diego_py.cli.lines import BAD, DIM, GOOD, HEAD, Line

_STYLES: dict[str, dict[str, object]] = {
    HEAD: {"bold": True},
    GOOD: {"fg": "green"},
    BAD: {"fg": "red"},
    DIM: {"dim": True},
    "": {},
}


def show(lines: Iterable[Line], err: bool = False) -> None:
    """Print lines, coloured when somebody looks."""
    for line in lines:
        click.echo(click.style(line.text, **_STYLES[line.style]), err=err)  # type: ignore[arg-type]


def is_watched() -> bool:
    """Somebody looks at standard error, so that it may be drawn over."""
    return sys.stderr.isatty()


@contextmanager
def waiting(what: str | Callable[[], str]) -> Iterator[None]:
    """While the body runs, a line on the terminal that says for what we wait and for how long; nothing in a pipe.

    Where `what` is asked again each time, the line says how far it is.
    """
    if not is_watched():
        yield
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    began_s = time.monotonic()

    def line() -> Text:
        took = draw.duration((time.monotonic() - began_s) * 1000)
        return Text.assemble(("  … ", "cyan"), what if isinstance(what, str) else what(), (f"   {took}", "dim"))

    with Live(console=Console(stderr=True), get_renderable=line, transient=True, refresh_per_second=10):
        yield
