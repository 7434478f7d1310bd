"""When a cell may be said to be empty: it says so itself, or its presence ran out."""

import pytest

from bbs.evacuation import Evacuation
from bbs.replacement import Replacement
from diego_py.errors import DiegoError, EvacuationFailed, HopUnreachable, Outcome
from diego_py.models.identifiers import CellId
from tests.unit.bbs.stage import Stage

CELL = CellId("cell-1")


def evacuation(stage: Stage) -> Evacuation:
    return Evacuation(stage.scene.store, stage.placement.pool, Replacement(stage.scene.store, stage.placement))


def answers_once(stage: Stage) -> None:
    """The cell is told to drain, says what it has, and is cut off then."""
    asked = 0

    async def cut_off() -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise HopUnreachable("the cell does not answer", outcome=Outcome.UNKNOWN)

    stage.cells.before_state = cut_off


async def test_a_cell_that_does_not_answer_is_not_said_to_be_empty(stage: Stage) -> None:
    answers_once(stage)
    with pytest.raises(EvacuationFailed) as failed:
        await evacuation(stage).evacuate(stage.scene.call, CELL, 0.0)
    assert (failed.value.outcome, failed.value.root.code) == (Outcome.UNKNOWN, HopUnreachable.code)


async def test_a_cell_whose_presence_ran_out_is(stage: Stage) -> None:
    answers_once(stage)
    asked = stage.cells.before_state

    async def gone_then() -> None:
        try:
            await asked()
        except DiegoError:
            await stage.scene.tampering.shift("cells", "expires_at", -3600, CELL)
            raise

    stage.cells.before_state = gone_then
    done = await evacuation(stage).evacuate(stage.scene.call, CELL, 0.0)
    assert (done.cell_id, done.moved) == (CELL, 0)
