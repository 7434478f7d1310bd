"""BBSes and cells as they are, thousands of times, with everything going wrong that can: some things never happen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.batch import run_seeds
from tests.simulation.bugs import BUGS, Bug
from tests.simulation.simulation import run

SEEDS = int(os.environ.get("DIEGO_SIMULATION_SEEDS", "300"))
"""A sample; `.ci/run` runs `scripts/simulate 0 10000` with both processors to itself."""
FIRST = int(os.environ.get("DIEGO_SIMULATION_FIRST", "0"))
BUG_SEEDS_MAX = 1_500
"""Within so many seeds a bug that was put in is found."""
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(900)
def test_whatever_fails_nothing_that_must_not_be_ever_is(capsys: pytest.CaptureFixture[str]) -> None:
    summary = run_seeds(FIRST, SEEDS)
    with capsys.disabled():
        print("", *summary.lines(), sep="\n")
    assert summary.runs == SEEDS
    assert not summary.broken, "\n".join(summary.lines())


@pytest.mark.timeout(300)
def test_the_same_seed_is_the_same_run_in_any_process() -> None:
    """Nothing depends on addresses, hashes, real time or what ran before."""
    ours = [f"{seed} {run(seed).trace}" for seed in (3, 1, 0, 2)]
    for hash_seed in ("1", "2"):
        told = subprocess.run(
            [sys.executable, "-m", "tests.simulation.batch", "--traces", "0", "4"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert sorted(told.stdout.splitlines()) == sorted(ours)
    assert len({run(seed).trace for seed in range(4)}) == 4


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_that_is_put_in_is_found(bug: Bug) -> None:
    with bug():
        assert any(run(seed, rates=BUGS[bug]).broken for seed in range(BUG_SEEDS_MAX))
