"""The real garden does what the executor relies on: the functions that the fake one passes too."""

from __future__ import annotations

import pytest

from cells.garden.garden import Garden
from tests.contract.backend_contract import CONTRACTS, Contract
from tests.kernel.containers import RUNTIMES

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("runtime_path", RUNTIMES, indirect=True)
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
async def test_contract(contract: Contract, garden: Garden) -> None:
    await contract(garden, "contract", "preloaded:busybox")
