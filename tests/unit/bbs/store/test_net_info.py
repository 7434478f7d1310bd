"""What an instance's row keeps of its addresses is read without the wire's care, and is the same."""

from __future__ import annotations

import msgspec
from hypothesis import given

from diego_py import wire
from diego_py.models.actual_lrp import NetInfo
from tests import strategies


@given(strategies.net_infos)
def test_net_info_is_read_alike(net_info: NetInfo) -> None:
    stored = wire.encode(net_info)
    read = msgspec.json.decode(stored, type=NetInfo)
    assert read == net_info == wire.decode(NetInfo, stored)
    assert isinstance(read.ports, tuple)
    assert read.preferred_address is net_info.preferred_address
