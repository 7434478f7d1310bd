"""Faults by name, one function each: do the harm, measure what the product promises about it, heal the network.

That the rest holds too (tests/chaos/invariants.py) is looked at after every one.
"""

from tests.chaos.faults import bbses, cells, clocks, containers, database, moves, scarce, state, swarm
from tests.chaos.faults.scene import FAULTS, Fault, Measured, Scene

MODULES = (bbses, cells, clocks, containers, database, moves, scarce, state, swarm)
__all__ = ["FAULTS", "MODULES", "Fault", "Measured", "Scene"]
