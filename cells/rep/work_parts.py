"""One request for many instances, taken apart: each is a part with ids and a budget of its own."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from cells.rep.work import CellWork
from diego_py import wire
from diego_py.bad_fields import bad_fields
from diego_py.call import Call
from diego_py.errors import BudgetSpent, DiegoError, InvalidSpec, Outcome, twin
from diego_py.http.parts import Part, call_of
from diego_py.http.server import invalid_fields
from diego_py.models.desired_lrp import DesiredLRPDefinition
from diego_py.models.fields import JsonValue
from diego_py.models.work import InstanceWork, Started, Work, Works
from diego_py.service.clock import Clock


def parts_of(works: Works, cell: CellWork, clock: Clock) -> Sequence[Part]:
    """A part for each instance. Definitions are read once, and one that cannot be read fails its own instances."""
    definitions = [_definition(told) for told in works.definitions]

    def part_of(wanted: InstanceWork) -> Part:
        async def run(call: Call) -> Started:
            if wanted.budget_ms <= 0:
                raise BudgetSpent("the budget is spent on arrival", outcome=Outcome.NOT_STARTED)
            return await cell.run_instance(call, _work(wanted, definitions))

        return Part(call_of(wanted.request_id, wanted.trace_id, wanted.budget_ms, clock), run)

    return [part_of(wanted) for wanted in works.instances]


def _definition(told: JsonValue) -> DesiredLRPDefinition | InvalidSpec:
    try:
        return wire.convert(DesiredLRPDefinition, told)
    except wire.InvalidFields:
        errors = bad_fields(DesiredLRPDefinition, told)
        return invalid_fields([evolve(error, pointer=f"/definition{error.pointer}") for error in errors])


def _work(wanted: InstanceWork, definitions: Sequence[DesiredLRPDefinition | InvalidSpec]) -> Work:
    """Raises InvalidSpec."""
    if wanted.definition >= len(definitions):
        raise InvalidSpec("1 invalid field(s): /definition", outcome=Outcome.NOT_STARTED)
    definition = definitions[wanted.definition]
    if isinstance(definition, DiegoError):
        raise twin(definition)
    return Work(
        process_guid=wanted.process_guid,
        index=wanted.index,
        domain=wanted.domain,
        instance_guid=wanted.instance_guid,
        definition=definition,
        epoch=wanted.epoch,
    )
