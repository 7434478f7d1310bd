"""What becomes of a replacement when somebody else changes the rows meanwhile."""

import pytest

from bbs.replacement import Pace, Replacement, Strategy
from diego_py.errors import ReplaceFailed
from diego_py.models.actual_lrp import ActualLRPState
from tests.contract.store.conftest import definition
from tests.unit.bbs.stage import Stage


async def test_an_instance_that_was_stopped_meanwhile_is_a_failure_of_the_replacement_not_a_refusal(
    stage: Stage,
) -> None:
    """Others were started anew by then: 4xx would say that nothing was changed."""
    call, placement = stage.scene.call, stage.placement
    stored = await stage.scene.lifecycle.desire(call, definition(instances=2))
    placed = await placement.desire(call, stored.desired, stored.actuals, False)
    changed = definition(instances=2, memory_mb=16)
    replaced = await placement.succession.replace(call, changed, None, None)
    await placement.stop(call, placed.actuals[1])
    with pytest.raises(ReplaceFailed) as failed:
        await Replacement(stage.scene.store, placement).replace(call, replaced, Pace(Strategy.RECREATE))
    document = failed.value.problem
    assert (document.status, document.code) == (500, "actual_lrp_not_found")
    row = await stage.scene.row()
    assert row is not None
    assert (row.state, row.revision) == (ActualLRPState.UNCLAIMED, replaced.desired.revision)
