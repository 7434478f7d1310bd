"""How long things are waited for on a cell. Pure."""

from __future__ import annotations

from attrs import frozen


@frozen
class Pace:
    """How long things are waited for on this cell, in seconds."""

    settle_s: float
    """A process without a check that has worked for so much processor time counts as running. Less, and a command that
    fails early would be answered with 201; more, and every start of something that is busy at first takes longer."""
    startup_interval_max_s: float
    liveness_interval_s: float
    graceful_stop_s: float
