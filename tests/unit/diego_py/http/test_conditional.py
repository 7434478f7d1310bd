"""If-None-Match is read as RFC 9110 says, and a 304 has the tag and no body."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from diego_py.http.conditional import ETAG, is_known, tagged

TAG = '"a-1"'


def asked(*lines: str) -> web.Request:
    return make_mocked_request("GET", "/", headers=[("If-None-Match", line) for line in lines])  # type: ignore[arg-type]


@pytest.mark.parametrize("lines", [[TAG], ["*"], ['"b", "a-1"'], ['W/"a-1"'], ['"b"', '"c",W/"a-1"'], [' "a-1" ']])
def test_a_tag_is_known(lines: list[str]) -> None:
    assert is_known(asked(*lines), TAG)


@pytest.mark.parametrize("lines", [[], ['"b"'], ["a-1"], [""], ['"a-1'], ['"a-10"'], ['"*"'], ["w/a-1"]])
def test_any_other_is_not(lines: list[str]) -> None:
    assert not is_known(asked(*lines), TAG)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40))
def test_any_header_is_an_answer(text: str) -> None:
    assert is_known(asked(text), TAG) in (True, False)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_a_body_has_its_own_tag(body: bytes, other: bytes) -> None:
    first = tagged(asked(), web.Response(body=body))
    again = tagged(asked(first.headers[ETAG]), web.Response(body=other))
    assert first.status == 200
    assert (again.status, again.body) == ((304, None) if body == other else (200, other))
    assert (again.headers[ETAG] == first.headers[ETAG]) == (body == other)


def test_a_tag_that_is_there_is_kept() -> None:
    told = tagged(asked(TAG), web.Response(body=b"x", headers={ETAG: TAG}))
    assert (told.status, told.headers[ETAG]) == (304, TAG)
