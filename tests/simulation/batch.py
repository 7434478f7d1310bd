"""Many seeds on several processors, and one seed with its story: `scripts/simulate --help`."""

from __future__ import annotations

import argparse
import gc
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from attrs import frozen

from tests.simulation.simulation import Outcome, run

CHUNK = 25
PROCESSES = 2
SHOWN_MAX = 10


@frozen
class Summary:
    """What came of many seeds."""

    runs: int
    steps: int
    virtual_s: float
    seconds: float
    broken: tuple[Outcome, ...]

    def lines(self) -> Iterator[str]:
        """For people."""
        speed = self.runs / self.seconds
        yield f"{self.runs} seeds in {self.seconds:.1f} s: {speed:.1f} seeds/s, {self.steps / self.runs:.0f} steps and"
        yield f"{self.virtual_s / self.runs:.1f} s of virtual time each; {len(self.broken)} broken"
        for outcome in self.broken[:SHOWN_MAX]:
            yield f"seed {outcome.seed}: {outcome.broken}"
            yield f"    scripts/simulate --story {outcome.seed}"


def run_seeds(first: int, count: int, processes: int = PROCESSES) -> Summary:
    """Run seeds one after another on each of `processes` processors."""
    chunks = [range(begin, min(begin + CHUNK, first + count)) for begin in range(first, first + count, CHUNK)]
    began_s = time.perf_counter()
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=settle) as pool:
        outcomes = [outcome for chunk in pool.map(run_chunk, chunks) for outcome in chunk]
    return Summary(
        runs=len(outcomes),
        steps=sum(outcome.steps for outcome in outcomes),
        virtual_s=sum(outcome.virtual_s for outcome in outcomes),
        seconds=time.perf_counter() - began_s,
        broken=tuple(outcome for outcome in outcomes if outcome.broken),
    )


def settle() -> None:
    """In each process, once everything is imported: none of that is garbage."""
    gc.disable()
    gc.freeze()


def run_chunk(seeds: Sequence[int]) -> list[Outcome]:
    """In one process. Garbage is collected between runs: a collection within one takes longer than the run."""
    outcomes = [run(seed) for seed in seeds]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # what tasks of the dead never came to await
        gc.collect()
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the deterministic simulation.")
    parser.add_argument("first", type=int, nargs="?", default=0, help="the first seed")
    parser.add_argument("count", type=int, nargs="?", default=1_000, help="how many seeds")
    parser.add_argument("--processes", type=int, default=PROCESSES, help="processors to use")
    parser.add_argument("--story", type=int, metavar="SEED", help="tell everything that happens with one seed")
    parser.add_argument("--traces", action="store_true", help="print the trace hash of each seed")
    chosen = parser.parse_args()
    if chosen.story is not None:
        outcome = run(chosen.story, tell_story=True)
        print(*outcome.story, f"trace {outcome.trace:x}: {outcome.broken or 'all is well'}", sep="\n")
        return bool(outcome.broken)
    if chosen.traces:
        for seed in range(chosen.first, chosen.first + chosen.count):
            print(seed, run(seed).trace)
        return 0
    summary = run_seeds(chosen.first, chosen.count, chosen.processes)
    print(*summary.lines(), sep="\n")
    return bool(summary.broken)


if __name__ == "__main__":
    sys.exit(main())
