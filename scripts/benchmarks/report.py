"""The figures of `bench start` as a text for people and a document for programs."""

from __future__ import annotations

import sys
from typing import Any

from attrs import asdict, define

from scripts.benchmarks.figures import Figures, Spread, milliseconds, table, times

PAIRS = (
    ("start cold: first instruction", "runc cold: first instruction"),
    ("start cold: answer", "runc cold: first instruction"),
    ("start hot: first instruction", "runc hot: first instruction"),
    ("start hot: answer", "runc hot: first instruction"),
    ("start cold: first instruction", "crun cold: first instruction"),
    ("start cold: answer", "crun cold: first instruction"),
    ("start hot: first instruction", "crun hot: first instruction"),
    ("start hot: answer", "crun hot: first instruction"),
    ("start cold: first instruction", "runc, Docker's confinement cold: first instruction"),
    ("start cold: answer", "runc, Docker's confinement cold: first instruction"),
    ("start hot: first instruction", "runc, Docker's confinement hot: first instruction"),
    ("start hot: answer", "runc, Docker's confinement hot: first instruction"),
    ("start cold: first instruction", "runc spec default cold: first instruction"),
    ("bad command: whole text", "runc bad command: whole text"),
    ("refusal: whole text", "one hop: GET /livez"),
    ("delete after cold", "runc: kill, wait, delete"),
    ("delete after cold", "crun: kill, wait, delete"),
)
SCALE_PAIRS = (
    ("cascade up: containers a second", "runc up: containers a second"),
    ("cascade up: CPU ms a container", "runc up: CPU ms a container"),
    ("cascade up: containers a second", "runc, Docker's confinement up: containers a second"),
    ("cascade up: CPU ms a container", "runc, Docker's confinement up: CPU ms a container"),
    ("cascade down: containers a second", "runc down: containers a second"),
    ("cascade down: CPU ms a container", "runc down: CPU ms a container"),
)


@define
class Report:
    """Everything of one run."""

    facts: dict[str, str]
    starts: Figures
    hops: dict[str, list[float]]
    steps: Figures
    scale: Figures
    noisy: int
    """How often the machine was still busy with something else when a clock was started."""
    left: list[str]
    """What was still on the host afterwards; must be empty."""

    def text(self) -> str:
        parts = ["\n".join(f"{name}: {fact}" for name, fact in self.facts.items())]
        if self.starts.rounds:
            parts.append(f"rounds: {len(self.starts.rounds)}, noisy measurements: {self.noisy}")
            parts.append(_times("single containers, ms", self.starts))
            parts.append(_ratios(self.starts, PAIRS))
            parts.append(self._hops())
            parts.append(_times("garden by itself, ms (steps may overlap)", self.steps))
        if self.scale.rounds:
            parts.append(_times(f"100 containers, {len(self.scale.rounds)} rounds", self.scale))
            parts.append(_ratios(self.scale, SCALE_PAIRS))
        parts.append("left behind: " + (", ".join(self.left) or "nothing"))
        return "\n\n".join(parts)

    def _hops(self) -> str:
        rows = [[name, *milliseconds(Spread.of(each)), str(len(each))] for name, each in self.hops.items()]
        return table(["hop on the critical path of a cold start, self ms", "median", "min - max", "n"], rows)

    def document(self) -> dict[str, Any]:
        return asdict(self)


def _times(head: str, figures: Figures) -> str:
    rows = [[name, *milliseconds(figures.spread(name))] for name in sorted(figures.names())]
    return table([head, "median", "min - max"], rows)


def _ratios(figures: Figures, pairs: tuple[tuple[str, str], ...]) -> str:
    rows = [[name, to, times(figures.ratio(name, to))] for name, to in pairs if to in figures.names()]
    return table(["ratio of", "to", "median of rounds (min - max)"], rows)


def progress(what: str, number: int, of: int) -> None:
    """To the terminal only: the report alone is the output."""
    if sys.stderr.isatty():
        print(f"\r{what} {number} of {of} ", end="" if number < of else "\n", file=sys.stderr, flush=True)
