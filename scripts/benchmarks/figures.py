"""Rounds of figures, and tables of them: medians with their spread, and ratios within rounds, never between runs."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from attrs import define, field, frozen


@frozen
class Spread:
    """A median with the least and the greatest."""

    median: float
    least: float
    greatest: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(median(values), min(values), max(values), len(values))


@define
class Figures:
    """What was measured, by name and round."""

    rounds: list[dict[str, float]] = field(factory=list)

    def begin_round(self) -> None:
        self.rounds.append({})

    def add(self, name: str, value: float) -> None:
        """A figure of the present round."""
        assert name not in self.rounds[-1], name
        self.rounds[-1][name] = value

    def names(self) -> list[str]:
        return list(dict.fromkeys(name for each in self.rounds for name in each))

    def spread(self, name: str) -> Spread:
        return Spread.of([each[name] for each in self.rounds if name in each])

    def ratio(self, name: str, to: str) -> Spread:
        """Of the ratios of each round: machines have moods, and a round has one mood."""
        return Spread.of([each[name] / each[to] for each in self.rounds if name in each and to in each])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, so that it can be read in a terminal and put into a document as it is."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [head, *rows]]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def milliseconds(spread: Spread) -> list[str]:
    return [f"{spread.median:.1f}", f"{spread.least:.1f} - {spread.greatest:.1f}"]


def times(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.least:.2f} - {spread.greatest:.2f})"
