"""What came of a run, as tables: for people, and as Markdown for the page that keeps them."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from attrs import asdict, frozen
from rich.console import Console
from rich.table import Table

from tests.chaos.faults.scene import ELSEWHERE, ROUTED
from tests.chaos.trial import Trial

LEADS: Final = "another one leads"
HEADLINES: Final = {
    "cell loss to RUNNING elsewhere": {
        (name, ELSEWHERE) for name in ("cell_lost", "cell_cut_off", "cell_mute")
    },
    "BBS failover, hard": {(name, LEADS) for name in ("leader_killed", "leader_frozen", "bbs_cut_from_postgres")},
    "BBS failover, graceful": {("leader_stopped", LEADS)},
    "Postgres is back to every BBS ready": {("postgres_killed", "every BBS is ready again")},
    "crash of a process to RUNNING": {(name, "another one runs") for name in ("process_killed", "container_deleted")},
}


@frozen
class Run:
    """The trials of one timing, and what was broken so badly that there is no trial of it."""

    timing: str
    trials: tuple[Trial, ...]
    broken: tuple[str, ...]
    seconds: float

    @property
    def held(self) -> bool:
        return not self.broken and all(trial.held for trial in self.trials)

    @property
    def met(self) -> int:
        """Requests that a fault met."""
        return sum(sum(trial.met.values()) for trial in self.trials)


Rows = list[tuple[str, ...]]


def show(run: Run, markdown: bool) -> None:
    """Print all of it."""
    put: Callable[[str, tuple[str, ...], Rows], None] = _as_markdown if markdown else _as_table
    put(f"Faults, {run.timing}", ("fault", "measured", "n", "median", "worst", "bound", "violations"), _faults(run))
    put(f"Distributions, {run.timing}", ("what", "n", "p50 s", "p99 s", "bound s"), [*_headlines(run)])
    put(f"Totals, {run.timing}", ("what", "count"), [*_totals(run)])


def _faults(run: Run) -> Rows:
    """A row for each thing that was measured."""
    violations: Counter[str] = Counter()
    seen: dict[tuple[str, str, float | None, str], list[float]] = {}
    for trial in run.trials:
        name = trial.fault.name
        violations[name] += len(trial.violated)
        for one in trial.measured:
            seen.setdefault((name, one.what, one.bound, one.unit), []).append(one.value)
        seen.setdefault((name, "all is repaired", None, "s"), []).append(trial.repaired_s)
    rows: Rows = []
    for (name, what, bound, unit), values in seen.items():
        limit = "" if bound is None else _value(bound, unit)
        shown = _value(statistics.median(values), unit), _value(max(values), unit)
        rows.append((name, what, str(len(values)), *shown, limit, str(violations[name])))
    return rows + [(told.partition(" ")[0], "BROKEN, see below", "1", "", "", "", "1") for told in run.broken]


def _value(value: float, unit: str) -> str:
    return f"{value:.2f} s" if unit == "s" else f"{value:.0f} {unit}"


def _headlines(run: Run) -> Iterator[tuple[str, ...]]:
    for told, sources in HEADLINES.items():
        found = [one for trial in run.trials for one in trial.measured if (trial.fault.name, one.what) in sources]
        if found:
            values = sorted(one.value for one in found)
            shown = _percentile(values, 50), _percentile(values, 99)
            yield told, str(len(values)), f"{shown[0]:.2f}", f"{shown[1]:.2f}", f"{max(one.bound for one in found):.1f}"


def _percentile(ordered: Sequence[float], percent: float) -> float:
    """By nearest rank: of fewer than 100 values the 99th is the worst one."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _totals(run: Run) -> Iterator[tuple[str, str]]:
    answers: Counter[str] = sum((trial.answers for trial in run.trials), Counter())
    asked = [one for trial in run.trials for one in trial.measured if one.what.startswith(ROUTED)]
    unkept = sum("acknowledged" in line for told in run.broken for line in told.splitlines())
    yield "trials", str(len(run.trials) + len(run.broken))
    yield "seconds", f"{run.seconds:.0f}"
    yield "requests of the clients", str(sum(answers.values()))
    yield "of them met by a fault", str(run.met)
    met: Counter[str] = sum((trial.met for trial in run.trials), Counter())
    yield "of those done (2xx)", str(sum(count for name, count in met.items() if name.startswith("2")))
    yield "tasks run twice", str(sum(trial.run_twice for trial in run.trials))
    yield "acknowledged requests lost", str(sum(trial.never_run for trial in run.trials) + unkept)
    yield "requests of a router during replacements and evacuations", str(sum(int(one.unit[3:]) for one in asked))
    yield "of them failed", f"{sum(one.value for one in asked):.0f}"
    yield "violations of invariants", str(sum(len(trial.violated) for trial in run.trials) + len(run.broken))
    yield "bounds not held", str(sum(not one.held for trial in run.trials for one in trial.measured))
    yield "answers", ", ".join(f"{name}: {count}" for name, count in answers.most_common())


def _as_table(title: str, names: tuple[str, ...], rows: Rows) -> None:
    table = Table(title=title)
    for name in names:
        table.add_column(name)
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table)


def _as_markdown(title: str, names: tuple[str, ...], rows: Rows) -> None:
    print(f"\n{title}:\n")
    for row in (names, ("---",) * len(names), *rows):
        print(f"| {' | '.join(row)} |")


def as_data(trial: Trial) -> dict[str, Any]:
    """One trial for a file."""
    return {**asdict(trial, recurse=True, filter=lambda field, _: field.name != "harm"), "held": trial.held}
