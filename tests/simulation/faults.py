"""What goes wrong, drawn from the seed: each run has its own selection of faults and its own rates (swarm testing)."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

from attrs import define, field, frozen

from tests.simulation.loop import SimulatedProcess
from tests.simulation.memory_store.store import Fault, Moment

MESSAGE: Final = ("refused", "lost", "reset", "reply_lost", "duplicated", "late")
ANSWERS: Final = ("cut_half_way",)
"""At each piece of an answer."""
STORE: Final = ("statement_lost", "commit_lost", "answer_lost", "stalled")
LEADERS: Final = ("leader_stalled",)
RUNTIME: Final = ("create", "run", "run_after", "stop", "destroy", "destroy_after")
PROCESSES: Final = ("bbs_killed", "cell_killed", "bbs_frozen", "cell_frozen", "cut_off")
APPS: Final = ("app_ends", "readiness_changes", "callback_lost", "callback_refused")
OPERATORS: Final = ("restored",)
RATES: Final = (0.01, 0.03, 0.1)
PROCESS_RATES: Final = (0.01, 0.03)
STALL_RATES: Final = (0.001, 0.005, 0.02)
"""At each statement."""
STALL_S_MAX: Final = 12.0
LATE_S_MAX: Final = 8.0
TRAVEL_S_MAX: Final = 0.004


@frozen
class Fate:
    """What becomes of one message."""

    fault: str = ""
    travel_s: float = 0.0


@define
class Faults:
    """Draws every fault. Once `healed`, there are none."""

    random: Random
    rates: dict[str, float] = field(factory=dict)
    healed: bool = False

    @classmethod
    def drawn(cls, random: Random) -> Faults:
        """A selection: most runs have a few kinds, some have none, some have all."""
        share = random.choice((0.0, 0.2, 0.4, 0.7, 1.0))
        rates = {}
        for name in (*MESSAGE, *ANSWERS, *STORE, *RUNTIME, *PROCESSES, *APPS, *LEADERS, *OPERATORS):
            if random.random() < share:
                usual = PROCESS_RATES if name in PROCESSES else RATES
                usual = STALL_RATES if name in ("stalled", "statement_lost") else usual
                rates[name] = random.choice((0.1, 0.5) if name in LEADERS else usual)
        return cls(random, rates)

    def strikes(self, name: str) -> bool:
        """Whether this fault happens now."""
        rate = self.rates.get(name)
        return rate is not None and not self.healed and self.random.random() < rate

    def message(self) -> Fate:
        """For each message one fate."""
        travel_s = self.random.random() * TRAVEL_S_MAX
        if not self.healed:
            for name in MESSAGE:
                if name in self.rates and self.strikes(name):
                    return Fate(name, self.random.random() * LATE_S_MAX if name == "late" else travel_s)
        return Fate("", travel_s)

    def store(self, op: str, moment: Moment) -> Fault | None:
        """The fault hook of the store in memory."""
        if self.healed:
            return None
        if moment is Moment.STATEMENT:
            return Fault.LOST_BEFORE if self.strikes("statement_lost") else None
        if self.strikes("commit_lost"):
            return Fault.COMMIT_LOST
        return Fault.ANSWER_LOST if self.strikes("answer_lost") else None

    async def before_repairs(self, process: SimulatedProcess) -> None:
        """A leader has decided and has not begun yet: nothing but the fence keeps it from acting too late."""
        if self.strikes("leader_stalled"):
            process.freeze(self.random.random() * STALL_S_MAX)
            await asyncio.sleep(0)

    async def travel_to_store(self, process: SimulatedProcess) -> None:
        """Mostly at once, now and then long enough for others to come first; or the whole process stalls."""
        if self.strikes("stalled"):
            process.freeze(self.random.random() * STALL_S_MAX)
        await asyncio.sleep(self.random.random() * TRAVEL_S_MAX if self.random.random() < 0.1 else 0)
