"""Text with a style: what is drawn, apart from where it is shown. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

HEAD = "head"
GOOD = "good"
BAD = "bad"
DIM = "dim"


@frozen
class Line:
    """One line for people. `style` is one of HEAD, GOOD, BAD, DIM or nothing."""

    text: str
    style: str = ""


def plain(lines: Iterable[Line]) -> str:
    """The text alone."""
    return "\n".join(line.text for line in lines)
