"""`scripts/chaos`: choose faults, endure them, print a row for each.

All faults once with the default timing; then, with --requests, faults with quick timing until so many requests of the
clients were met by a fault.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from attrs import frozen

from tests.chaos.faults import FAULTS, Fault
from tests.chaos.figures import Run, as_data, show
from tests.chaos.fleet import PRODUCTION, QUICK, Fleet, Timing, installed
from tests.chaos.trial import Trial, endure

CLIENTS = 6
REPEATS = 10


@frozen
class Choice:
    """What is asked of a run."""

    timing: Timing
    called: str
    clients: int
    repeats: int
    requests: int | None = None
    """End as soon as a fault met so many requests; None: when all is done."""


def run(arguments: Sequence[str]) -> int:
    """The exit status: 0 when every bound was held and nothing was violated."""
    chosen = _chosen(arguments)
    if chosen.list:
        print("\n".join(f"{fault.name:24} {fault.told}" for fault in FAULTS.values()))
        return 0
    faults = [fault for name, fault in FAULTS.items() if chosen.all or name in chosen.faults]
    print(f"seed {chosen.seed}, {chosen.rounds} round(s) of {len(faults)} fault(s)", flush=True)
    seeds = range(chosen.seed, chosen.seed + chosen.rounds)
    timing, called = (QUICK, "presences of 3 s") if chosen.quick else (PRODUCTION, "default timing")
    choice = Choice(timing, called, chosen.clients, chosen.repeats)
    runs = [asyncio.run(_endure([(fault, seed) for seed in seeds for fault in faults], choice))]
    missing = (chosen.requests or 0) - runs[0].met
    if missing > 0:
        more = Choice(QUICK, "presences of 3 s, for more requests", chosen.clients, 1, missing)
        later = ((fault, seed) for seed in itertools.count(seeds.stop) for fault in faults)
        runs.append(asyncio.run(_endure(later, more)))
    for one in runs:
        show(one, chosen.markdown)
    if chosen.json:
        trials = [as_data(trial) for one in runs for trial in one.trials]
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(trials)))
    for one in runs:
        for told in one.broken:
            print(told, file=sys.stderr)
        for trial in one.trials:
            for told in (*trial.violated, *trial.told):
                print(f"{trial.fault.name}: {told}", file=sys.stderr)
    return 0 if all(one.held for one in runs) else 1


def _chosen(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help="by name; see --list")
    parser.add_argument("--all", action="store_true", help="every fault there is")
    parser.add_argument("--list", action="store_true", help="say which faults there are")
    parser.add_argument("--quick", action="store_true", help="presence and leadership of 3 s instead of the default 15")
    parser.add_argument("--rounds", type=int, default=1, help="how often, each with another seed")
    parser.add_argument("--requests", type=int, help="go on with --quick until faults met so many requests")
    parser.add_argument("--clients", type=int, default=CLIENTS, help=f"that ask all the time; {CLIENTS}")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"of a short fault in one trial; {REPEATS}")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first round")
    parser.add_argument("--markdown", action="store_true", help="print the tables as docs/reliability.md keeps them")
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.faults) - set(FAULTS):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; see --list")
    if not (chosen.list or chosen.all or chosen.faults):
        parser.error("name faults, or say --all")
    return chosen


async def _endure(waiting: Iterable[tuple[Fault, int]], choice: Choice) -> Run:
    """All trials; after a broken promise the next one gets an installation of its own."""
    trials: list[Trial] = []
    broken: list[str] = []
    began_s = time.monotonic()
    left = iter(waiting)
    after = next(left, None)

    def met() -> int:
        return sum(sum(trial.met.values()) for trial in trials)

    while after is not None:
        with tempfile.TemporaryDirectory(prefix="diego-chaos-", dir="/tmp") as directory:
            async with installed(Path(directory), choice.timing) as fleet:
                told = ""
                while after is not None and not told:
                    trial, told = await _endured(fleet, *after, choice)
                    trials += [trial] if trial else []
                    broken += [told] if told else []
                    held = trial is not None and trial.held
                    said = f"{time.monotonic() - began_s:6.0f} s  {after[0].name}: {'held' if held else 'BROKEN'}"
                    print(said, file=sys.stderr, flush=True)
                    enough = choice.requests is not None and met() >= choice.requests
                    after = None if enough else next(left, None)
    return Run(choice.called, tuple(trials), tuple(broken), time.monotonic() - began_s)


async def _endured(fleet: Fleet, fault: Fault, seed: int, choice: Choice) -> tuple[Trial | None, str]:
    """The trial, or which promise was broken in it."""
    try:
        return await endure(fleet, fault, seed, choice.clients, choice.repeats), ""
    except (AssertionError, OSError, ExceptionGroup) as failed:
        return None, f"{fault.name} (seed {seed}): {_reasons(failed)}"


def _reasons(failed: Exception) -> str:
    """What was said in the leaves."""
    if isinstance(failed, ExceptionGroup):
        return "; ".join(_reasons(error) for error in failed.exceptions)
    return str(failed) or repr(failed)
