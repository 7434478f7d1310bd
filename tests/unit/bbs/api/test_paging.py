"""Cursors come back as they were given out, and anything else is refused as the caller's mistake."""

import base64
import json
import re
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from bbs.api.paging import NDJSON, PAGE_ITEMS, PAGE_ITEMS_MAX, page_answer, page_request, whole_number
from diego_py.errors import InvalidHeader
from diego_py.models.cell import RootfsProvider

KEYS = (str, int)


def asked(query: str = "", accept: str = "*/*") -> web.Request:
    return make_mocked_request("GET", f"/v1/things{query}", headers={"Accept": accept})


def cursor_of(key: tuple[Any, ...]) -> str:
    page = page_request(asked("?limit=1"), (), KEYS)
    answered = page_answer(asked(), [RootfsProvider(name="a")], page, lambda item: key)
    cursor: str = json.loads(body_of(answered))["next_cursor"]
    return cursor


def body_of(answered: web.Response) -> bytes:
    assert isinstance(answered.body, bytes)
    return answered.body


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=100)


@given(names, st.integers(0, 2**31 - 1))
def test_a_cursor_comes_back_as_the_key_it_was_made_from(name: str, index: int) -> None:
    cursor = cursor_of((name, index))
    assert re.fullmatch(r"[A-Za-z0-9_-]+", cursor), "it needs no quoting"
    assert page_request(asked(f"?cursor={cursor}"), (), KEYS).after == (name, index)


def encoded(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


GARBAGE = [
    "",
    "=",
    "%00",
    "%ff",
    "é",
    "a",
    "x" * 2_000,
    encoded(b"null"),
    encoded(b"[]"),
    encoded(b'["a"]'),
    encoded(b'["a", 1, 2]'),
    encoded(b'[1, "a"]'),
    encoded(b'["a", 1.5]'),
    encoded(b'["a", null]'),
    encoded(b'{"a": 1}'),
    encoded(b'["\xff", 1]'),
    encoded(b'["a", 1'),
    encoded(b"[" * 700),
    encoded(b'["a\\u0000", 1]'),
    encoded(b'["a", -1]'),
    encoded(b'["a", 2147483648]'),
    encoded(b'["a", 18446744073709551616]'),
]


@pytest.mark.parametrize("cursor", GARBAGE, ids=lambda value: value[:12])
def test_a_cursor_that_this_list_did_not_give_out_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidHeader, match="cursor is not one that this list gave out"):
        page_request(asked(f"?cursor={cursor}"), (), KEYS)


@given(st.text(st.characters(), max_size=40) | st.binary(max_size=40).map(encoded))
def test_any_cursor_is_a_key_or_refused(text: str) -> None:
    try:
        page = page_request(asked("?cursor=" + quote(text, errors="replace")), (), KEYS)
    except InvalidHeader:
        return
    assert page.after is not None
    assert [type(part) for part in page.after] == [str, int]


def test_without_a_query_it_is_the_first_page_of_the_usual_size() -> None:
    page = page_request(asked(), (), KEYS)
    assert (page.limit, page.after) == (PAGE_ITEMS, None)


@pytest.mark.parametrize("limit", ["0", "-1", "x", "", "1.5", str(PAGE_ITEMS_MAX + 1), "9" * 5_000, "%C2%B2", "+1"])
def test_a_wrong_limit_is_refused(limit: str) -> None:
    with pytest.raises(InvalidHeader, match=f"limit takes a whole number from 1 to {PAGE_ITEMS_MAX}"):
        page_request(asked(f"?limit={limit}"), (), KEYS)


def test_an_unknown_parameter_is_refused_and_the_known_ones_are_told() -> None:
    assert page_request(asked("?domain=d&limit=5"), ("domain",), KEYS).limit == 5
    with pytest.raises(InvalidHeader, match=r"unknown query parameter 'domian'; this list takes limit, cursor, domain"):
        page_request(asked("?domian=d"), ("domain",), KEYS)


def test_whole_numbers_have_a_default_and_bounds() -> None:
    assert whole_number(asked(), "tail", 7, 0, 9) == 7
    assert whole_number(asked("?tail=0"), "tail", 7, 0, 9) == 0
    assert whole_number(asked("?tail=9"), "tail", 7, 0, 9) == 9
    with pytest.raises(InvalidHeader):
        whole_number(asked("?tail=10"), "tail", 7, 0, 9)


def test_a_full_page_names_the_next_one_and_a_short_one_does_not() -> None:
    request = asked("?limit=2&domain=d")
    page = page_request(request, ("domain",), (str,))
    items = [RootfsProvider(name="a"), RootfsProvider(name="b")]
    answered = page_answer(request, items, page, lambda item: (item.name,))
    told = json.loads(body_of(answered))
    assert [item["name"] for item in told["items"]] == ["a", "b"]
    found = re.fullmatch(r'<(/v1/things\?[^>]*)>; rel="next"', answered.headers["Link"])
    assert found is not None
    following = make_mocked_request("GET", found[1])
    assert following.query["domain"] == "d"
    assert page_request(following, ("domain",), (str,)).after == ("b",)
    short = page_answer(request, items[:1], page, lambda item: (item.name,))
    assert json.loads(body_of(short))["next_cursor"] is None
    assert "Link" not in short.headers


def test_ndjson_is_one_item_a_line_with_the_cursor_in_the_link() -> None:
    request = asked("?limit=1", accept=NDJSON)
    page = page_request(request, (), (str,))
    answered = page_answer(request, [RootfsProvider(name="a")], page, lambda item: (item.name,))
    assert answered.content_type == NDJSON
    assert [json.loads(line)["name"] for line in body_of(answered).splitlines()] == ["a"]
    assert "cursor=" in answered.headers["Link"]
