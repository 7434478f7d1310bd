"""Every change has to pass these faults; `scripts/chaos --all` does all there are, with the default timing."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Installations
from tests.chaos.faults import FAULTS
from tests.chaos.trial import endure

pytestmark = [pytest.mark.cluster, pytest.mark.asyncio(loop_scope="module")]

ALWAYS = [name for name, fault in FAULTS.items() if fault.always]


@pytest.mark.parametrize("name", ALWAYS)
async def test_fault(installations: Installations, name: str) -> None:
    async with installations.lent() as fleet:
        trial = await endure(fleet, FAULTS[name], seed=1)
    assert trial.violated == ()
    late = [measured for measured in trial.measured if not measured.held]
    assert late == []
