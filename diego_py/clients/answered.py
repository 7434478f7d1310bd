"""Bodies of answers as nouns. All raise BadAnswer for what does not have the expected form: the outcome is unknown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from diego_py import telling, wire
from diego_py.errors import BadAnswer, Outcome

T = TypeVar("T")


def decoded(kind: type[T], body: bytes) -> T:
    """A model, read strictly."""
    with _form():
        return wire.decode(kind, body)


def converted(kind: type[T], item: Any) -> T:
    """A model that is part of an answer, read strictly."""
    with _form():
        return wire.convert(kind, item)


def told(kind: type[T], body: bytes | msgspec.Raw) -> T:
    """A model as processes of ours tell it each other."""
    with _form():
        return telling.decode(kind, body)


def loose(kind: type[T], body: bytes) -> T:
    """A noun of which the server may say more than we read."""
    return loosely(kind, object_of(body))


def loosely(kind: type[T], item: Any) -> T:
    """One that is part of an answer."""
    with _form():
        return msgspec.convert(item, kind)


def object_of(body: bytes) -> dict[str, Any]:
    """An answer that is any object."""
    found = json_of(body)
    if not isinstance(found, dict):
        raise BadAnswer("the answer is not an object", outcome=Outcome.UNKNOWN)
    return found


def json_of(body: bytes) -> Any:
    """An answer, or a line of one, that is any JSON."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as malformed:
        raise BadAnswer("the answer is not JSON", outcome=Outcome.UNKNOWN) from malformed


@contextmanager
def _form() -> Iterator[None]:
    try:
        yield
    except (wire.MalformedJSON, wire.InvalidFields, msgspec.ValidationError) as malformed:
        raise BadAnswer("the answer does not have the expected form", outcome=Outcome.UNKNOWN) from malformed
