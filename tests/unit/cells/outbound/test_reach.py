"""Which addresses are public, in whatever disguise, and whom a setting names."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from cells.garden.config import PRIVATE_NETWORKS, ImageSettings
from cells.outbound import reach
from cells.outbound.reach import NotPublic, is_loopback, may_follow, pattern_of, public_socket, reason_against

PRIVATE_4 = [ip_network(network) for network in PRIVATE_NETWORKS if ":" not in network]
PRIVATE_6 = [ip_network(network) for network in PRIVATE_NETWORKS if ":" in network and not network.startswith("::ffff")]


def within(networks: list[reach.Network]) -> st.SearchStrategy[int]:
    """Any address of any of them."""
    return st.sampled_from(networks).flatmap(
        lambda network: st.integers(int(network[0]), int(network[-1])),
    )


@given(within(PRIVATE_4))
def test_nothing_private_is_public_in_any_disguise(number: int) -> None:
    """As IPv4, mapped, by 6to4, by a NAT64, and as the kernel of old had it."""
    forms = [
        IPv4Address(number),
        IPv6Address((0xFFFF << 32) | number),
        IPv6Address((0x2002 << 112) | (number << 80) | 1),
        IPv6Address((0x64FF9B << 96) | number),
        IPv6Address(number),
    ]
    assert [form for form in forms if not reason_against(str(form), ())] == []


@given(within(PRIVATE_6))
def test_nothing_private_of_the_new_kind_is_public(number: int) -> None:
    assert reason_against(str(IPv6Address(number)), ())


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1", "loopback"),
        ("0.0.0.0", "loopback"),
        ("[::1]", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("169.254.169.254", "link-local"),
        ("fe80::1%lo", "link-local"),
        ("fd00:ec2::254", "private"),
        ("100.100.100.200", "private"),
        ("168.63.129.16", "reserved"),
        ("192.0.0.192", "reserved"),
        ("fec0::1", "reserved"),
        ("ff02::1", "multicast"),
        ("203.0.114.9", "denied"),
        ("::ffff:203.0.114.9", "denied"),
        ("8.8.8.8", ""),
        ("::ffff:8.8.8.8", ""),
        ("64:ff9b::808:808", ""),
        ("2606:4700::1111", ""),
        ("registry.example", ""),
    ],
)
def test_what_an_address_is(address: str, reason: str) -> None:
    assert reason_against(address, [ip_network("203.0.114.0/24")]) == reason


def test_the_hosts_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is: what listens there may be closed to everybody else. Here all addresses count as public."""
    monkeypatch.setattr(reach, "_kind_of", lambda address: "")
    assert reason_against("127.0.0.1", ()) == "this host's own"
    assert reason_against("198.51.100.77", ()) == ""


def test_a_socket_is_only_made_for_a_public_address() -> None:
    def to(address: str) -> reach.AddrInfo:
        return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, 443))

    public_socket(to("8.8.8.8"), ()).close()
    with pytest.raises(NotPublic, match="private") as refused:
        public_socket(to("10.0.0.1"), ())
    assert refused.value.kind == "private"


@pytest.mark.parametrize(
    ("text", "url", "matches", "names"),
    [
        ("*", "https://h", True, False),
        ("*", "https://[::1]:77", True, False),
        ("*:5000", "https://h:5000", True, False),
        ("*:5000", "https://h", False, False),
        ("h", "https://h", True, True),
        ("h", "https://h:443", True, True),
        ("h", "http://h:80", True, True),
        ("h", "https://h:80", False, True),
        ("h", "https://h:5000", False, True),
        ("h", "https://a.h", False, True),
        ("h:5000", "https://h:5000", True, True),
        ("h:443", "https://h", True, True),
        ("h:*", "http://h:99", True, True),
        ("*.corp", "https://a.b.corp", True, True),
        ("*.corp", "https://corp", False, True),
        ("*.corp", "https://notcorp", False, True),
        ("*.corp:*", "https://a.corp:7", True, True),
        ("[::1]:5000", "https://[::1]:5000", True, True),
    ],
)
def test_patterns(text: str, url: str, matches: bool, names: bool) -> None:
    pattern = pattern_of(text)
    assert (pattern.matches(URL(url)), pattern.names) == (matches, names)


@pytest.mark.parametrize("text", ["", "H", "h:", "h:x", "*corp", "a b", "**", "*.", "h:0", "http://h", "h/x", "u@h"])
def test_bad_patterns(text: str) -> None:
    with pytest.raises(ValueError, match=r"registry|host"):
        ImageSettings(allowed=(text,))


@pytest.mark.parametrize("proxy", ["proxy:3128", "ftp://h", "http://u:p@h:3128", "http://h/x", "http://", "http://[h"])
def test_bad_proxies(proxy: str) -> None:
    with pytest.raises(ValueError, match="image_proxy"):
        ImageSettings(proxy=proxy)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["registry.example", "10.0.0.1", "localhost.example", "", None, "::2"])
def test_other_machines(host: str | None) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("here", "target", "allowed"),
    [
        ("https://a.example", "https://b.example/x?signature=1", True),
        ("https://a.example", "http://b.example", False),
        ("https://a.example", "https://127.0.0.1", False),
        ("https://a.example", "file:///etc/passwd", False),
        ("https://a.example", "https://user:pw@b.example", False),
        ("http://a.example", "http://b.example", True),
        ("http://a.example", "http://localhost:1800/v1", False),
        ("http://127.0.0.1:5000", "http://127.0.0.1:6000", True),
        ("http://127.0.0.1:5000", "https://b.example", True),
    ],
)
def test_where_a_server_may_send_us(here: str, target: str, allowed: bool) -> None:
    assert may_follow(URL(here), URL(target)) is allowed
