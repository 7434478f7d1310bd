"""What an instance may reach when that changes while it is started: the newest rules hold, and before it begins."""

import pytest

from cells.app import Cell
from diego_py.errors import DiegoError, NetworkFailed
from diego_py.models.egress import EgressProtocol, SecurityGroupRule
from diego_py.models.identifiers import InstanceGuid
from diego_py.models.work import EgressChange
from tests.fakes.bbs import FakeBBS
from tests.fakes.cell import call, work
from tests.fakes.garden import FakeGarden


def reaching(version: int, *networks: str) -> EgressChange:
    rules = tuple(SecurityGroupRule(protocol=EgressProtocol.ALL, destinations=(network,)) for network in networks)
    return EgressChange(egress_rules=rules, version=version)


def reached(garden: FakeGarden) -> list[str]:
    return [address for rule in garden._box("i-1").egress for address in rule.destinations]


async def test_egress_rules_that_changed_since_the_work_was_sent(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    """They hold before a process of the user begins; a change that comes late undoes none of a later version."""
    bbs.egress = reaching(2, "192.0.2.0/24")
    await cell.work.run_instance(call(), work())
    assert garden.ops() == ["create", "set_egress", "run"]
    assert reached(garden) == ["192.0.2.0/24"]
    await cell.work.set_egress(call(), InstanceGuid("i-1"), reaching(1, "198.51.100.0/24"))
    assert reached(garden) == ["192.0.2.0/24"]
    await cell.work.set_egress(call(), InstanceGuid("i-1"), reaching(3))
    assert reached(garden) == []


async def test_egress_rules_that_cannot_be_changed_are_no_start(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    bbs.egress = reaching(2, "192.0.2.0/24")
    garden.failures["set_egress"] = NetworkFailed("the kernel refused")
    with pytest.raises(DiegoError) as caught:
        await cell.work.run_instance(call(), work())
    assert isinstance(caught.value.root, NetworkFailed)
    assert "run" not in garden.ops()
    assert garden.containers() == []
