"""The fake garden keeps the contract of container backends."""

import pytest

from tests.contract.backend_contract import CONTRACTS, Contract
from tests.fakes.garden import FakeGarden


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
async def test_contract(contract: Contract) -> None:
    garden = FakeGarden()
    await garden.start()
    await contract(garden, "h-1", "preloaded:base")
    assert garden.containers() == []
