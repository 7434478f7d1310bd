"""Every bad field of a body at once: what cannot be read, and what is out of bounds in the parts that can. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from diego_py.models.fields import FieldError, pointer_to
from diego_py.models.shapes import Maybe, Noun, Sequence, Shape, Table, fields_of, shape_of
from diego_py.models.validation import FIELD_ERRORS_MAX, check
from diego_py.wire import read


def bad_fields(cls: Any, builtins: Any) -> tuple[FieldError, ...]:
    """All errors of a body that is to be a `cls`: unknown, missing and mistyped fields first, then limits.

    `wire.decode` alone stops at the first kind; a caller that corrects a request wants to hear all of it.
    """
    shape = shape_of(cls)
    errors: list[FieldError] = []
    read(shape, builtins, "", errors)
    seen = {error.pointer for error in errors}
    beyond = (error for error in _out_of_bounds(shape, builtins, "") if error.pointer not in seen)
    return (*errors, *islice(beyond, FIELD_ERRORS_MAX - len(errors)))


def _out_of_bounds(shape: Shape, value: Any, at: str) -> Iterator[FieldError]:
    """Limits and rules of the largest parts of `value` that can be read whole."""
    errors: list[FieldError] = []
    whole = read(shape, value, at, errors)
    if not errors:
        yield from check(shape, whole, at)
    elif isinstance(shape, Maybe):
        yield from _out_of_bounds(shape.inner, value, at)
    elif isinstance(shape, Noun) and isinstance(value, dict):
        for field in fields_of(shape.type):
            if field.key in value:
                yield from _out_of_bounds(field.shape, value[field.key], f"{at}/{field.key}")
    elif isinstance(shape, Sequence) and isinstance(value, list):
        for position, item in enumerate(value):
            yield from _out_of_bounds(shape.items, item, f"{at}/{position}")
    elif isinstance(shape, Table) and isinstance(value, dict):
        for key, item in value.items():
            yield from _out_of_bounds(shape.values, item, at + pointer_to(key))
