import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from cells.garden.images.challenge import Challenge, Credentials, is_loopback, may_follow, read, without
from diego_py.secret import REDACTED, Secret


def test_challenges_of_real_registries() -> None:
    bearer = 'Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull"'
    assert list(read([bearer, 'Basic realm="Registry Realm"'])) == [
        Challenge(
            "bearer",
            {"realm": "https://auth.example/token", "service": "registry.example", "scope": "repository:a/b:pull"},
        ),
        Challenge("basic", {"realm": "Registry Realm"}),
    ]


def test_several_challenges_in_one_header() -> None:
    found = list(read(['Negotiate, Basic realm="a \\"b\\", c", Bearer realm=plain , service="s"']))
    assert found == [
        Challenge("negotiate", {}),
        Challenge("basic", {"realm": 'a "b", c'}),
        Challenge("bearer", {"realm": "plain", "service": "s"}),
    ]


@given(st.lists(st.text(max_size=80), max_size=3))
def test_any_header_can_be_read(headers: list[str]) -> None:
    assert all(challenge.scheme == challenge.scheme.lower() for challenge in read(headers))


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
def test_where_a_registry_may_send_us(here: str, target: str, allowed: bool) -> None:
    assert may_follow(URL(here), URL(target)) is allowed


def test_credentials_print_nothing() -> None:
    credentials = Credentials("vcap", Secret("hunter2"))
    assert "hunter2" not in repr(credentials)
    assert "vcap" not in repr(credentials)
    assert credentials.basic().reveal() == "Basic " + base64.b64encode(b"vcap:hunter2").decode()


def test_an_echoed_secret_is_taken_out() -> None:
    basic = Credentials("vcap", Secret("hunter2")).basic()
    echo = f"you said {basic.reveal()} that is hunter2"
    assert without([Secret("hunter2"), basic, Secret("")], echo) == f"you said {REDACTED} that is {REDACTED}"
