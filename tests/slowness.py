"""How many times slower than usual the machine is that runs the tests: one factor for all that they wait for at most.

DIEGO_TEST_SLOWNESS sets it; `scripts/test-vm` does. It stretches limits, and moments within what takes as much longer,
and never what a test is about.
"""

from __future__ import annotations

import os

SLOWNESS = float(os.environ.get("DIEGO_TEST_SLOWNESS", "1"))


def patient(seconds: float) -> float:
    """A limit, or a moment, in seconds, for this machine."""
    return seconds * SLOWNESS
