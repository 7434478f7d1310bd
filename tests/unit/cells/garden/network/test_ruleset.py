"""The table as text: what must be said in which order."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Any

from cells.garden.network.nft_elements import Elements
from cells.garden.network.ruleset import Policy, script
from cells.garden.spec import EgressRule, Network, PortForward


def text(*containers: Elements, **more: Any) -> str:
    values = {"networks": (IPv4Network("10.1.0.0/24"),), "host_address": "192.0.2.1", **more}
    return script(Policy("cell_table", "cl", **values), containers)


def test_overlapping_denials_are_merged() -> None:
    assert "ip daddr { 10.0.0.0/8 }" in text(deny_networks=("10.0.0.0/8", "10.1.0.0/16"))


def test_an_ipv4_network_is_denied_by_whatever_ipv6_addresses_lead_there() -> None:
    told = text(deny_networks=("169.254.169.254/32", "10.0.0.0/8", "fe80::/10"))
    six = "64:ff9b::a00:0/104, 64:ff9b::a9fe:a9fe/128, 2002:a00::/24, 2002:a9fe:a9fe::/48, fe80::/10"
    assert f"ip6 daddr {{ {six} }}" in told
    assert "ip6 daddr { 64:ff9b::/96, 2002::/16 }" in text(deny_networks=("0.0.0.0/0",))


def test_without_denials_containers_are_apart_all_the_same() -> None:
    told = text()
    assert "ip daddr {" not in told
    assert 'iifname "cl*" oifgroup 859744' in told


def test_the_old_table_goes_in_the_same_transaction() -> None:
    assert text().startswith("add table inet cell_table\ndelete table inet cell_table\ntable inet cell_table {\n")


def test_rules_come_before_denials_and_after_the_other_containers() -> None:
    told = text(deny_networks=("10.0.0.0/8",), closed=True, resolvers=("10.0.0.2",))
    through = told[told.index("chain through") :]
    order = ["established", "goto between", "vmap @egress", "10.0.0.2", "ip daddr { 10.0.0.0/8 }", 'oifname "cl*" drop']
    assert [through.index(each) for each in order] == sorted(through.index(each) for each in order)


def test_elements() -> None:
    elements = Elements("cl7", Network("10.1.0.9", "192.0.2.1", (PortForward(80, 61001), PortForward(81, 61002))))
    assert text(elements).splitlines()[-2:] == [
        'add element inet cell_table sources { "cl7" . 10.1.0.9 }',
        "add element inet cell_table published { 61001 : 10.1.0.9 . 80, 61002 : 10.1.0.9 . 81 }",
    ]


def test_rules_of_a_container() -> None:
    rules = (
        EgressRule("tcp", ("10.0.0.0/24", "10.0.1.7"), ((80, 80), (443, 443))),
        EgressRule("all", ("0.0.0.0/0",)),
        EgressRule("icmp", ("10.9.0.0-10.9.0.3",), icmp_type=8),
        EgressRule("udp", ("10.1.0.0/24",), ((53, 54),), log=True),
    )
    lines = text(Elements("cl7", Network("10.1.0.9", "192.0.2.1"), "handle", rules), log_group=5).splitlines()
    assert lines[-11:] == [
        "add chain inet cell_table log_cl7",
        'add rule inet cell_table log_cl7 limit rate 10/second burst 20 packets log prefix "handle" group 5 snaplen 80',
        "add rule inet cell_table log_cl7 accept",
        "add chain inet cell_table out_cl7",
        "add rule inet cell_table out_cl7 meta nfproto ipv4 ct original ip daddr 10.9.0.0-10.9.0.3"
        " meta l4proto icmp icmp type 8 accept",
        "add rule inet cell_table out_cl7 meta nfproto ipv4 accept",
        "add rule inet cell_table out_cl7 meta nfproto ipv4 ct original ip daddr { 10.0.0.0-10.0.0.255, 10.0.1.7 }"
        " meta l4proto tcp ct original proto-dst { 80, 443 } accept",
        'add element inet cell_table egress { "cl7" : jump out_cl7 }',
        "add chain inet cell_table among_cl7",
        "add rule inet cell_table among_cl7 meta nfproto ipv4 ct original ip daddr 10.1.0.0-10.1.0.255"
        " meta l4proto udp ct original proto-dst 53-54 goto log_cl7",
        'add element inet cell_table among { "cl7" : jump among_cl7 }',
    ]


def test_only_private_addresses_are_masqueraded_in_ipv6() -> None:
    four = IPv4Network("10.1.0.0/24")
    assert "ip6 saddr fd00:1::/64 oifname != " in text(networks=(four, IPv6Network("fd00:1::/64")))
    assert "ip6 saddr 2001:db8::/64 oifname != " not in text(networks=(four, IPv6Network("2001:db8::/64")))
