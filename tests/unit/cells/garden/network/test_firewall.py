"""The table as text: what must be said in which order."""

from __future__ import annotations

from cells.garden.network.firewall import Firewall, ruleset
from cells.garden.network.nft_elements import Elements
from cells.garden.spec import Network, PortForward


def firewall(*denied: str) -> Firewall:
    return Firewall("cell_table", "nft", "cl", "10.1.0.0/24", denied)


def test_overlapping_denials_are_merged() -> None:
    assert "ip daddr { 10.0.0.0/8 }" in ruleset(firewall("10.0.0.0/8", "10.1.0.0/16"))


def test_without_denials_containers_are_apart_all_the_same() -> None:
    text = ruleset(firewall())
    assert "ip daddr {" not in text
    assert "iifgroup 859744 oifgroup 859744" in text


def test_chains_are_declared_flushed_and_filled_in_this_order() -> None:
    text = ruleset(firewall("10.0.0.0/8"))
    declared, flushed = text.index("chain through {"), text.index("flush chain inet cell_table through")
    assert declared < flushed < text.index("ct status dnat accept")


def test_elements() -> None:
    elements = Elements("cl7", Network("10.1.0.9", "192.0.2.1", (PortForward(80, 61001), PortForward(81, 61002))))
    assert firewall()._element(elements).splitlines() == [
        'add element inet cell_table sources { "cl7" . 10.1.0.9 }',
        "add element inet cell_table published { 61001 : 10.1.0.9 . 80, 61002 : 10.1.0.9 . 81 }",
    ]
