"""JSON of what processes of ours tell each other for each of thousands of instances, without a walk through fields.

Only for nouns whose JSON has the names of their fields, and no secrets. What is said beyond a noun is passed over.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

import msgspec

from diego_py.wire import MalformedJSON

T = TypeVar("T")


def decode(cls: type[T], body: bytes | msgspec.Raw) -> T:
    """The noun that `body` says. Raises MalformedJSON."""
    try:
        return cast(T, _decoder(cls).decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as cause:
        raise MalformedJSON(str(cause)) from None


def encode(noun: object) -> bytes:
    """What `decode` takes."""
    return msgspec.json.encode(noun)


_decoder: Callable[[Any], msgspec.json.Decoder[Any]] = cache(msgspec.json.Decoder)
