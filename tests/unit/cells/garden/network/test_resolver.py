"""What of the host's resolv.conf containers get."""

from __future__ import annotations

from pathlib import Path

import pytest

from cells.garden.network import resolver
from cells.garden.network.resolver import Resolver


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(resolver, "HOST_FILES", (tmp_path / "first", tmp_path / "second"))
    return tmp_path


FILE = """\
# nameserver 9.9.9.9
domain old.example
search a.example b.example ; last
nameserver 127.0.0.53
nameserver 10.0.0.2 # inside
nameserver ::1
nameserver fe80::1%eth0
nameserver fd00::3
nameserver nonsense
nameserver
options ndots:2 edns0
"""


def test_the_hosts_settings_without_what_a_container_cannot_reach(host: Path) -> None:
    (host / "first").write_text(FILE)
    four = Resolver(("10.0.0.2",), ("a.example", "b.example"), ("ndots:2", "edns0"))
    assert resolver.chosen(Resolver(), has_ipv6=False) == four
    assert resolver.chosen(Resolver(), has_ipv6=True).servers == ("10.0.0.2", "fd00::3")


def test_a_host_with_a_local_server_has_a_second_file(host: Path) -> None:
    (host / "first").write_text("nameserver 127.0.0.53\n")
    assert resolver.chosen(Resolver(), has_ipv6=False) == Resolver()
    (host / "second").write_text("nameserver 192.0.2.1\nsearch x.example\n")
    assert resolver.chosen(Resolver(), has_ipv6=False) == Resolver(("192.0.2.1",), ("x.example",))


def test_what_is_configured_wins_one_by_one(host: Path) -> None:
    (host / "first").write_text(FILE)
    found = resolver.chosen(Resolver(("192.0.2.5",), (), ("ndots:1",)), has_ipv6=False)
    assert found.text() == "nameserver 192.0.2.5\nsearch a.example b.example\noptions ndots:1\n"
