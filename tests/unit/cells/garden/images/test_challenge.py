import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cells.garden.images.challenge import Challenge, Credentials, read, without
from cells.outbound.outbound import HEADER_BYTES_MAX
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


@pytest.mark.parametrize(
    "header", ["Bearer a=b{} !", "{}!", "Bearer a{}", 'Bearer a="{}', "Bearer {}=b", "Bearer a=b,{}"]
)
@pytest.mark.parametrize("filler", [" ", "a", "\\", ","])
def test_no_header_takes_long(header: str, filler: str) -> None:
    """One registry must not hold up a whole cell: 14 s of the processor, when it went back over what separates."""
    began_s = time.process_time()
    list(read([header.format(HEADER_BYTES_MAX * filler)]))
    assert time.process_time() - began_s < 1


def test_credentials_print_nothing() -> None:
    credentials = Credentials("vcap", Secret("hunter2"))
    assert "hunter2" not in repr(credentials)
    assert "vcap" not in repr(credentials)
    assert credentials.basic().reveal() == "Basic " + base64.b64encode(b"vcap:hunter2").decode()


def test_an_echoed_secret_is_taken_out() -> None:
    basic = Credentials("vcap", Secret("hunter2")).basic()
    echo = f"you said {basic.reveal()} that is hunter2"
    assert without([Secret("hunter2"), basic, Secret("")], echo) == f"you said {REDACTED} that is {REDACTED}"
