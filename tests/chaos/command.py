"""`scripts/chaos`: choose faults, endure them, print a row for each."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
from attrs import asdict
from rich.console import Console
from rich.table import Table

from tests.chaos.faults import FAULTS, Fault
from tests.chaos.fleet import PRODUCTION, QUICK, Fleet, installed
from tests.chaos.trial import Trial, endure


def run(arguments: Sequence[str]) -> int:
    """The exit status: 0 when every bound was held and nothing was violated."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help="by name; see --list")
    parser.add_argument("--all", action="store_true", help="every fault there is")
    parser.add_argument("--list", action="store_true", help="say which faults there are")
    parser.add_argument("--quick", action="store_true", help="presence and leadership of 3 s instead of the default 15")
    parser.add_argument("--rounds", type=int, default=1, help="how often, each with another seed")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first round")
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    chosen = parser.parse_args(arguments)
    if chosen.list:
        print("\n".join(f"{fault.name:24} {fault.told}" for fault in FAULTS.values()))
        return 0
    if unknown := set(chosen.faults) - set(FAULTS):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; see --list")
    names = [*FAULTS] if chosen.all else [name for name in FAULTS if name in chosen.faults]
    if not names:
        parser.error("name faults, or say --all")
    print(f"seed {chosen.seed}, {chosen.rounds} round(s) of {len(names)} fault(s)", flush=True)
    seeds = range(chosen.seed, chosen.seed + chosen.rounds)
    trials, broken = asyncio.run(_endure([FAULTS[name] for name in names], seeds, chosen.quick))
    _print(trials)
    if chosen.json:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode([_figures(trial) for trial in trials])))
    for told in broken:
        print(told, file=sys.stderr)
    return 1 if broken or not all(_held(trial) for trial in trials) else 0


async def _endure(faults: Sequence[Fault], seeds: Sequence[int], quick: bool) -> tuple[list[Trial], list[str]]:
    """All trials; after a broken promise the next one gets an installation of its own."""
    trials: list[Trial] = []
    broken: list[str] = []
    waiting = [(fault, seed) for seed in seeds for fault in faults]
    while waiting:
        with tempfile.TemporaryDirectory(prefix="diego-chaos-", dir="/tmp") as directory:
            async with installed(Path(directory), QUICK if quick else PRODUCTION) as fleet:
                told = ""
                while waiting and not told:
                    fault, seed = waiting.pop(0)
                    trial, told = await _endured(fleet, fault, seed)
                    trials += [trial] if trial else []
                    broken += [told] if told else []
                    held = trial is not None and _held(trial)
                    print(f"{fault.name}: {'held' if held else 'BROKEN'}", flush=True)
    return trials, broken


async def _endured(fleet: Fleet, fault: Fault, seed: int) -> tuple[Trial | None, str]:
    """The trial, or which promise was broken in it."""
    try:
        return await endure(fleet, fault, seed), ""
    except (AssertionError, OSError, ExceptionGroup) as failed:
        return None, f"{fault.name} (seed {seed}): {_reasons(failed)}"


def _reasons(failed: Exception) -> str:
    """What was said in the leaves."""
    if isinstance(failed, ExceptionGroup):
        return "; ".join(_reasons(error) for error in failed.exceptions)
    return str(failed) or repr(failed)


def _held(trial: Trial) -> bool:
    return not trial.violated and all(measured.held for measured in trial.measured)


def _print(trials: Sequence[Trial]) -> None:
    """A row for each thing that was measured: the median of all rounds, and the worst one, beside its bound."""
    table = Table(title="faults", show_lines=False)
    for name in ("fault", "measured", "median s", "worst s", "bound s", "violated"):
        table.add_column(name, justify="left" if name in ("fault", "measured") else "right")
    violated: Counter[str] = Counter()
    times: dict[tuple[str, str, float | None], list[float]] = {}
    for trial in trials:
        violated[trial.fault.name] += len(trial.violated)
        for measured in trial.measured:
            times.setdefault((trial.fault.name, measured.what, measured.bound), []).append(measured.value)
        times.setdefault((trial.fault.name, "all is repaired", None), []).append(trial.repaired_s)
    for (name, what, bound_s), seconds in times.items():
        bound = "" if bound_s is None else f"{bound_s:.1f}"
        median, worst = f"{statistics.median(seconds):.2f}", f"{max(seconds):.2f}"
        table.add_row(name, what, median, worst, bound, str(violated[name]))
    Console(width=120).print(table)
    answers = sum((trial.answers for trial in trials), Counter())
    print(f"requests of the clients: {sum(answers.values())}; {dict(answers.most_common())}")
    print(f"invariants violated: {sum(violated.values())}")
    for trial in trials:
        for told in (*trial.violated, *trial.told):
            print(f"{trial.fault.name}: {told}", file=sys.stderr)


def _figures(trial: Trial) -> dict[str, object]:
    return {**asdict(trial, recurse=True, filter=lambda field, _: field.name != "harm"), "held": _held(trial)}
