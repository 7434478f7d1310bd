"""Checks a noun against the limits in its field types and against its own rules, and reports every bad field."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, assert_never

import msgspec

from diego_py.models.fields import (
    DUPLICATE,
    EXACTLY_ONE,
    INVALID,
    LIST_ITEMS_MAX,
    OUT_OF_RANGE,
    REQUIRED,
    TEXT_BYTES_MAX,
    TOO_LONG,
    WRONG_TYPE,
    FieldError,
    Limits,
    pointer_to,
)
from diego_py.models.shapes import (
    Anything,
    Choice,
    Hidden,
    Maybe,
    Moment,
    Noun,
    Plain,
    Sequence,
    Shape,
    Table,
    fields_of,
    is_one_of,
)
from diego_py.secret import REDACTED, Secret

JSON_BYTES_MAX: Final = 1024 * 1024
"""JSON that we carry and that has no limit of its own, in bytes."""
JSON_DEPTH_MAX: Final = 64
"""Nesting of JSON, in objects and lists; encoders and stores recurse."""
FIELD_ERRORS_MAX: Final = 200
"""Errors reported for one body; a body of rubbish must not become an answer of megabytes."""
_EMPTY: Final = ()
"""There is one only. Most fields of most nouns are this or None, and neither can be wrong."""


def validate(noun: Any) -> list[FieldError]:
    """Every bad field of an attrs value and of all nouns in it: limits first, then the noun's `rules()`.

    Types are taken as mypy checked them; what came as JSON was checked by `wire.decode`.
    """
    return list(islice(_check_noun(noun, ""), FIELD_ERRORS_MAX))


def depth_exceeds(value: object, limit: int) -> bool:
    """Whether lists and dicts nest deeper than `limit`; level by level, so that depth cannot overflow the stack."""
    level = _containers([value])
    for _ in range(limit):
        level = [inner for node in level for inner in _containers(node.values() if isinstance(node, dict) else node)]
        if not level:
            return False
    return bool(level)


def _containers(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, (list, tuple, dict))]


def _check_noun(noun: Any, at: str) -> Iterator[FieldError]:
    fields = fields_of(type(noun))
    if is_one_of(type(noun)):
        present = [field.key for field in fields if getattr(noun, field.name) is not None]
        if len(present) != 1:
            names = ", ".join(field.key for field in fields)
            yield FieldError(at, EXACTLY_ONE, f"must have exactly one of {names}")
    for field in fields:
        value = getattr(noun, field.name)
        if value is not None and value is not _EMPTY:
            yield from check(field.shape, value, f"{at}/{field.key}")
    rules = getattr(noun, "rules", None)
    if rules is not None:
        for error in rules():
            yield error.below(at)


def check(shape: Shape, value: Any, at: str) -> Iterator[FieldError]:
    """Every error of a value of this shape, found at the pointer `at`; for walkers of shapes."""
    match shape:
        case Plain():
            return _check_plain(shape, value, at)
        case Maybe():
            return iter(()) if value is None else check(shape.inner, value, at)
        case Noun():
            return _check_noun(value, at)
        case Sequence():
            return _check_sequence(shape, value, at)
        case Table():
            return _check_table(shape, value, at)
        case _:
            return _check_scalar(shape, value, at)


def _check_scalar(shape: Hidden | Anything | Moment | Choice, value: Any, at: str) -> Iterator[FieldError]:
    match shape:
        case Hidden():
            yield from _check_secret(shape, value, at)
        case Anything():
            yield from _check_json(value, at, JSON_BYTES_MAX)
        case Moment():
            if value.tzinfo is None:
                yield FieldError(at, INVALID, "must have a UTC offset")
        case Choice():
            return
        case _:
            assert_never(shape)


def _check_plain(shape: Plain, value: Any, at: str) -> Iterator[FieldError]:
    if isinstance(value, str):
        yield from _check_text(shape.limits, value, at)
        return
    low, high = shape.limits.minimum, shape.limits.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        yield FieldError(at, OUT_OF_RANGE, f"must be {_range(low, high)}")


def _range(low: int | None, high: int | None) -> str:
    if low is None or high is None:
        return f"at most {high}" if low is None else f"at least {low}"
    return f"between {low} and {high}"


def _check_text(limits: Limits, value: str, at: str) -> Iterator[FieldError]:
    if "\0" in value:
        yield FieldError(at, INVALID, "must not contain a NUL byte")
        return
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        yield FieldError(at, INVALID, "must not contain half of a surrogate pair")
        return
    bytes_max = TEXT_BYTES_MAX if limits.bytes_max is None else limits.bytes_max
    if size < limits.bytes_min:
        yield FieldError(at, REQUIRED, "must not be empty")
    elif size > bytes_max:
        yield FieldError(at, TOO_LONG, f"is {size} bytes, at most {bytes_max} are allowed")
    elif size and limits.pattern is not None and limits.pattern.fullmatch(value) is None:
        yield FieldError(at, INVALID, f"must be {limits.pattern_name}")


def _check_secret(shape: Hidden, value: Secret, at: str) -> Iterator[FieldError]:
    if value.reveal() == REDACTED:
        yield FieldError(at, INVALID, f"is {REDACTED}, which answers show in place of a secret; send the secret itself")
        return
    yield from _check_text(shape.limits, value.reveal(), at)


def _check_sequence(shape: Sequence, value: Any, at: str) -> Iterator[FieldError]:
    items_max = LIST_ITEMS_MAX if shape.limits.items_max is None else shape.limits.items_max
    if len(value) > items_max:
        yield FieldError(at, TOO_LONG, f"has {len(value)} items, at most {items_max} are allowed")
        return
    seen: set[object] = set()
    for position, item in enumerate(value):
        if shape.limits.unique and item in seen:
            yield FieldError(f"{at}/{position}", DUPLICATE, "is in the list already")
        if shape.limits.unique:
            seen.add(item)
        yield from check(shape.items, item, f"{at}/{position}")


def _check_table(shape: Table, value: Mapping[str, Any], at: str) -> Iterator[FieldError]:
    items_max = LIST_ITEMS_MAX if shape.limits.items_max is None else shape.limits.items_max
    if len(value) > items_max:
        yield FieldError(at, TOO_LONG, f"has {len(value)} entries, at most {items_max} are allowed")
        return
    if isinstance(shape.values, Anything):
        yield from _check_json(value, at, shape.limits.bytes_max or JSON_BYTES_MAX)
        return
    for key, item in value.items():
        below = at + pointer_to(key)
        yield from _check_text(shape.keys.limits, key, below)
        yield from check(shape.values, item, below)


def _check_json(value: object, at: str, bytes_max: int) -> Iterator[FieldError]:
    """Limits of JSON that we do not read. Postgres cannot store a NUL character in jsonb."""
    if depth_exceeds(value, JSON_DEPTH_MAX):
        yield FieldError(at, TOO_LONG, f"is nested deeper than {JSON_DEPTH_MAX} levels")
        return
    try:
        encoded = msgspec.json.encode(value)
    except (TypeError, ValueError):
        yield FieldError(at, WRONG_TYPE, "must be JSON")
        return
    if len(encoded) > bytes_max:
        yield FieldError(at, TOO_LONG, f"is {len(encoded)} bytes of JSON, at most {bytes_max} are allowed")
    elif b"\\u0000" in encoded:
        yield from _nul_characters(value, at)


def _nul_characters(value: Any, at: str) -> Iterator[FieldError]:
    if isinstance(value, str) and "\0" in value:
        yield FieldError(at, INVALID, "must not contain a NUL byte")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _nul_characters(str(key), at)
            yield from _nul_characters(item, at + pointer_to(key))
    elif isinstance(value, (list, tuple)):
        for position, item in enumerate(value):
            yield from _nul_characters(item, f"{at}/{position}")
