"""The closed set of types that a model's fields can have; validation, JSON and schemas all read them from here."""

import types
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Annotated, Any, TypeAlias, Union, get_args, get_origin

import attrs

from diego_py.models.fields import Limits
from diego_py.secret import Secret

_NO_LIMITS = Limits()


@attrs.frozen
class Plain:
    """bool, int, float or str (also behind a NewType)."""

    type: type[bool] | type[int] | type[float] | type[str]
    limits: Limits


@attrs.frozen
class Hidden:
    """A Secret; JSON has a string."""

    limits: Limits


@attrs.frozen
class Choice:
    """An enumeration whose values are strings."""

    type: type[Enum]


@attrs.frozen
class Moment:
    """A datetime that knows its offset; JSON has an RFC 3339 string."""


@attrs.frozen
class Sequence:
    """`tuple[X, ...]` or `list[X]`."""

    items: "Shape"
    make: Callable[[list[Any]], Any]
    limits: Limits


@attrs.frozen
class Table:
    """`Mapping[str, X]`."""

    keys: Plain
    values: "Shape"
    limits: Limits


@attrs.frozen
class Noun:
    """An attrs class. Its fields are looked up late, because nouns may contain themselves."""

    type: type[Any]


@attrs.frozen
class Maybe:
    """`X | None`."""

    inner: "Shape"


@attrs.frozen
class Anything:
    """JSON that we carry and do not read."""


Scalar: TypeAlias = Plain | Hidden | Choice | Moment | Anything
Composite: TypeAlias = Sequence | Table | Noun | Maybe
Shape: TypeAlias = Scalar | Composite


@attrs.frozen
class Field:
    """One field of a noun."""

    name: str
    """In Python."""
    key: str
    """In JSON: the name without the underscore that keeps `from_` and `try_` apart from keywords."""
    argument: str
    """In the call that makes the noun."""
    shape: Shape
    required: bool


def _fields_of(noun: Any) -> tuple[Field, ...]:
    attrs.resolve_types(noun, include_extras=True)
    return tuple(
        Field(
            name=attribute.name,
            key=attribute.name.rstrip("_"),
            argument=attribute.alias or attribute.name,
            shape=shape_of(attribute.type),
            required=attribute.default is attrs.NOTHING,
        )
        for attribute in attrs.fields(noun)
    )


fields_of: Callable[[Any], tuple[Field, ...]] = cache(_fields_of)
"""The fields of an attrs class in their order. Raises TypeError for a field type outside the closed set."""

keys_of: Callable[[Any], frozenset[str]] = cache(lambda noun: frozenset(field.key for field in fields_of(noun)))
"""Their names in JSON."""


def is_one_of(noun: type[Any]) -> bool:
    """Whether exactly one field of `noun` is set and the others are left out of JSON."""
    return bool(getattr(noun, "ONE_OF", False))


def shape_of(hint: Any, limits: Limits = _NO_LIMITS) -> Shape:
    """The shape of a type hint. Raises TypeError if models may not use that type."""
    origin = get_origin(hint)
    if origin is Annotated:
        inner, *extras = get_args(hint)
        return shape_of(inner, next((extra for extra in extras if isinstance(extra, Limits)), limits))
    if origin is Union or origin is types.UnionType:
        return _maybe(hint)
    if origin in (tuple, list):
        return _sequence(hint, limits)
    if origin is not None and issubclass(origin, Mapping):
        return _table(hint, limits)
    return _leaf(hint, limits)


def _leaf(hint: Any, limits: Limits) -> Shape:
    if hint is Any or hint is object:
        return Anything()
    if hasattr(hint, "__supertype__"):
        return shape_of(hint.__supertype__, limits)
    if hint in (bool, int, float, str):
        return Plain(hint, limits)
    if hint is Secret:
        return Hidden(limits)
    if hint is datetime:
        return Moment()
    if isinstance(hint, type) and issubclass(hint, Enum):
        return Choice(hint)
    if isinstance(hint, type) and attrs.has(hint):
        return Noun(hint)
    raise TypeError(f"a model may not have a field of type {hint!r}")


def _maybe(hint: Any) -> Shape:
    rest = [part for part in get_args(hint) if part is not type(None)]
    if len(rest) != 1 or len(rest) == len(get_args(hint)):
        raise TypeError(f"a model may not have a field of type {hint!r}; the only union is X | None")
    return Maybe(shape_of(rest[0]))


def _sequence(hint: Any, limits: Limits) -> Shape:
    parts = get_args(hint)
    if get_origin(hint) is list:
        return Sequence(shape_of(parts[0]), list, limits)
    if len(parts) != 2 or parts[1] is not Ellipsis:
        raise TypeError(f"a model may not have a field of type {hint!r}; tuples have one type and any length")
    return Sequence(shape_of(parts[0]), tuple, limits)


def _table(hint: Any, limits: Limits) -> Shape:
    keys, values = get_args(hint)
    key_shape = shape_of(keys)
    if not isinstance(key_shape, Plain) or key_shape.type is not str:
        raise TypeError(f"a model may not have a field of type {hint!r}; keys are strings")
    return Table(key_shape, shape_of(values), limits)
