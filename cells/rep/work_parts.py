"""One request for many instances, taken apart: each is a part with ids and a budget of its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec

from cells.rep import translate
from cells.rep.blueprint import Blueprint, blueprint_of
from cells.rep.work import CellWork
from diego_py import wire
from diego_py.bad_fields import bad_fields
from diego_py.call import Call
from diego_py.errors import BudgetSpent, DiegoError, InvalidSpec, Outcome, twin
from diego_py.http.parts import Part, call_of
from diego_py.http.server import invalid_fields
from diego_py.models import validation
from diego_py.models.desired_lrp import DesiredLRPDefinition
from diego_py.models.fields import JsonValue
from diego_py.models.work import InstanceWork, Started, Work, Works
from diego_py.service.clock import Clock

KEPT = 128
KEPT_BYTES_MAX = 64 * 1024
"""So many definitions of late are kept as they were read, unless one is longer: instances of an LRP have the same."""


def parts_of(works: Works, cell: CellWork, clock: Clock) -> Sequence[Part]:
    """A part for each instance. Definitions are read once, and one that cannot be read fails its own instances."""
    blueprints = [_blueprint(told, cell.start_timeout_default_s) for told in works.definitions]

    def part_of(wanted: InstanceWork) -> Part:
        async def run(call: Call) -> Started:
            if wanted.budget_ms <= 0:
                raise BudgetSpent("the budget is spent on arrival", outcome=Outcome.NOT_STARTED)
            blueprint = _blueprint_for(wanted, blueprints)
            return await cell.run_checked(call, _work(wanted, blueprint.definition), blueprint)

        return Part(call_of(wanted.request_id, wanted.trace_id, wanted.budget_ms, clock), run)

    return [part_of(wanted) for wanted in works.instances]


def _blueprint(told: JsonValue, start_timeout_default_s: float) -> Blueprint | DiegoError:
    body = msgspec.json.encode(told)
    read = _read if len(body) <= KEPT_BYTES_MAX else _read.__wrapped__
    return read(body, start_timeout_default_s)


@lru_cache(maxsize=KEPT)
def _read(body: bytes, start_timeout_default_s: float) -> Blueprint | DiegoError:
    """What the definition says, checked; or what is wrong with it."""
    told = msgspec.json.decode(body)
    try:
        definition = wire.convert(DesiredLRPDefinition, told)
        translate.refuse_invalid([error.below("/definition") for error in validation.validate(definition)])
        translate.refuse_unsupported(definition)
        return blueprint_of(definition, start_timeout_default_s)
    except wire.InvalidFields:
        return invalid_fields([error.below("/definition") for error in bad_fields(DesiredLRPDefinition, told)])
    except DiegoError as wrong:
        return wrong.with_traceback(None)


def _blueprint_for(wanted: InstanceWork, blueprints: Sequence[Blueprint | DiegoError]) -> Blueprint:
    """Raises InvalidSpec and UnsupportedField. A guid also becomes a file name here."""
    translate.refuse_invalid(validation.validate(wanted))
    if wanted.definition >= len(blueprints):
        raise InvalidSpec("1 invalid field(s): /definition", outcome=Outcome.NOT_STARTED)
    blueprint = blueprints[wanted.definition]
    if isinstance(blueprint, DiegoError):
        raise twin(blueprint)
    return blueprint


def _work(wanted: InstanceWork, definition: DesiredLRPDefinition) -> Work:
    return Work(
        process_guid=wanted.process_guid,
        index=wanted.index,
        domain=wanted.domain,
        instance_guid=wanted.instance_guid,
        definition=definition,
        epoch=wanted.epoch,
    )
