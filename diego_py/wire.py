"""The one place where models become JSON and back. Strict: unknown, missing and mistyped fields are all reported.

Nulls are explicit, except in "exactly one of" nouns (`ONE_OF`), which have only the key that is set. Datetimes are RFC
3339 in UTC, enumerations their names. A trailing underscore in Python (`from_`, `try_`) is not in JSON.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from typing import Any, Final, TypeVar, assert_never, cast

import attrs
import msgspec

from diego_py.models.fields import (
    INVALID,
    REQUIRED,
    UNKNOWN_FIELD,
    WRONG_TYPE,
    FieldError,
    JsonValue,
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
    Scalar,
    Sequence,
    Shape,
    Table,
    fields_of,
    is_one_of,
    keys_of,
    shape_of,
)
from diego_py.models.validation import FIELD_ERRORS_MAX, JSON_DEPTH_MAX, depth_exceeds
from diego_py.secret import REDACTED, Secret

T = TypeVar("T")

_AS_IS: Final = frozenset({str, int, float, bool, type(None)})
_BAD: Final = object()
"""Stands for a value that was reported."""
_JSON_NAMES: Final[Mapping[type[Any], str]] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
}
_SCHEMA_TYPES: Final[Mapping[type[Any], str]] = {bool: "boolean", int: "integer", float: "number", str: "string"}
_BYTE_OFFSET: Final = re.compile(r" \(byte (\d+)\)")


class MalformedJSON(ValueError):
    """The body is not JSON that we take. Says where; never quotes the body."""

    def __init__(self, problem: str, offset: int | None = None) -> None:
        super().__init__(problem if offset is None else f"{problem} at byte {offset}")
        self.problem = problem
        self.offset = offset
        """In bytes from the start of the body; None if the problem has no one place."""

    def __reduce__(self) -> tuple[type["MalformedJSON"], tuple[str, int | None]]:
        return (MalformedJSON, (self.problem, self.offset))


class InvalidFields(ValueError):
    """The JSON does not have the shape of the model. Carries every bad field, at most FIELD_ERRORS_MAX."""

    def __init__(self, errors: Iterable[FieldError]) -> None:
        self.errors = tuple(errors)
        super().__init__("invalid fields: " + ", ".join(f"{error.pointer or '(body)'}" for error in self.errors))

    def __reduce__(self) -> tuple[type["InvalidFields"], tuple[tuple[FieldError, ...]]]:
        return (InvalidFields, (self.errors,))


def decode(cls: type[T], body: bytes) -> T:
    """The value of type `cls` (an attrs class, or a list or dict of one) that `body` says.

    Raises MalformedJSON, or InvalidFields with every unknown, missing or mistyped field. Limits are not checked:
    `models.validation.validate` does, so that a limit can shrink without making stored rows unreadable.
    """
    return convert(cls, parse(body))


def convert(cls: type[T], builtins: JsonValue) -> T:
    """As `decode`, from what `parse` returned or what a driver read from a jsonb column."""
    errors: list[FieldError] = []
    value = read(_shape(cls), builtins, "", errors)
    if errors:
        raise InvalidFields(errors)
    return cast(T, value)


def parse(body: bytes) -> JsonValue:
    """JSON as dicts, lists, strings and numbers.

    Raises MalformedJSON for anything else: bad UTF-8, NaN, half surrogate pairs, integers beyond 64 bits, nesting
    deeper than JSON_DEPTH_MAX, and a key that is twice in one object, because parsers disagree which value counts.
    """
    try:
        value = msgspec.json.decode(body)
        if depth_exceeds(value, JSON_DEPTH_MAX):
            raise MalformedJSON(f"nested deeper than {JSON_DEPTH_MAX} levels")
        json.loads(body, object_pairs_hook=_refuse_duplicates, parse_int=_refuse_big)
    except RecursionError:
        raise MalformedJSON(f"nested deeper than {JSON_DEPTH_MAX} levels") from None
    except msgspec.DecodeError as cause:
        raise _malformed(str(cause), len(body)) from None
    except UnicodeDecodeError:
        raise MalformedJSON("not UTF-8", _first_bad_byte(body)) from None
    return value


def encode(value: object) -> bytes:
    """JSON for people and clients: every Secret is `***`. Raises TypeError for what models may not hold."""
    return msgspec.json.encode(to_builtins(value))


def encode_revealed(value: object) -> bytes:
    """JSON with the secrets in it, only for the store and for cells. Never for an answer, a log line or an error."""
    return msgspec.json.encode(to_builtins_revealed(value))


def to_builtins(value: object) -> JsonValue:
    """What `encode` writes, as dicts, lists, strings and numbers."""
    return _plain(value, reveal=False)


def to_builtins_revealed(value: object) -> JsonValue:
    """What `encode_revealed` writes, as dicts, lists, strings and numbers."""
    return _plain(value, reveal=True)


def schema(cls: Any) -> dict[str, Any]:
    """JSON schema (2020-12) of `cls`, with all its nouns below `$defs`."""
    definitions: dict[str, Any] = {}
    top = _schema(_shape(cls), definitions, "#/$defs/")
    return {**top, "$defs": definitions}


def schemas(*classes: Any, prefix: str = "#/components/schemas/") -> dict[str, Any]:
    """JSON schemas of attrs classes and of all nouns in them, by class name; references begin with `prefix`."""
    definitions: dict[str, Any] = {}
    for cls in classes:
        _schema(_shape(cls), definitions, prefix)
    return definitions


_shape: Callable[[Any], Shape] = cache(shape_of)
_written: Callable[[Any], Callable[[Any, bool], dict[str, Any]] | None] = cache(lambda cls: _writer(cls))


# Reading


def _malformed(message: str, size: int) -> MalformedJSON:
    found = _BYTE_OFFSET.search(message)
    problem = _BYTE_OFFSET.sub("", message)
    if found is not None:
        past_end = "trailing" in problem  # msgspec then names the byte after the first one too many
        return MalformedJSON(problem, int(found.group(1)) - past_end)
    return MalformedJSON(problem, size if "truncated" in message else None)


def _first_bad_byte(body: bytes) -> int | None:
    try:
        body.decode()
    except UnicodeDecodeError as cause:
        return cause.start
    return None


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    keys = [key for key, _ in pairs]
    if len(set(keys)) == len(keys):
        return
    twice = next(key for position, key in enumerate(keys) if key in keys[:position])
    raise MalformedJSON(f"the key {twice[:100]!r} is twice in one object")


def _refuse_big(digits: str) -> int:
    if len(digits) > 18 and not -(2**63) <= int(digits) < 2**63:
        raise MalformedJSON("an integer does not fit into 64 bits")
    return 0


def _report(errors: list[FieldError], at: str, code: str, detail: str) -> object:
    if len(errors) < FIELD_ERRORS_MAX:
        errors.append(FieldError(at, code, detail))
    return _BAD


def read(shape: Shape, value: Any, at: str, errors: list[FieldError]) -> Any:
    """The value that `value` stands for, or a mark after what is wrong was added to `errors`; for walkers of shapes."""
    match shape:
        case Maybe():
            return None if value is None else read(shape.inner, value, at, errors)
        case Noun():
            return _read_noun(shape.type, value, at, errors)
        case Sequence():
            if not isinstance(value, list):
                return _report(errors, at, WRONG_TYPE, "must be a list")
            return shape.make([read(shape.items, item, f"{at}/{i}", errors) for i, item in enumerate(value)])
        case Table():
            if not isinstance(value, dict):
                return _report(errors, at, WRONG_TYPE, "must be an object")
            return {key: read(shape.values, item, at + pointer_to(key), errors) for key, item in value.items()}
        case _:
            return _read_scalar(shape, value, at, errors)


def _read_scalar(shape: Scalar, value: Any, at: str, errors: list[FieldError]) -> Any:
    match shape:
        case Plain():
            return _read_plain(shape, value, at, errors)
        case Hidden():
            return Secret(value) if isinstance(value, str) else _report(errors, at, WRONG_TYPE, "must be a string")
        case Choice():
            return _read_choice(shape.type, value, at, errors)
        case Moment():
            return _read_moment(value, at, errors)
        case Anything():
            return value
        case _:
            assert_never(shape)


def _read_plain(shape: Plain, value: Any, at: str, errors: list[FieldError]) -> Any:
    if type(value) is shape.type:
        return value
    if shape.type is float and type(value) is int:
        return float(value)
    return _report(errors, at, WRONG_TYPE, f"must be {_JSON_NAMES[shape.type]}")


def _read_noun(noun: type[Any], value: Any, at: str, errors: list[FieldError]) -> Any:
    if not isinstance(value, dict):
        return _report(errors, at, WRONG_TYPE, "must be an object")
    before = len(errors)
    arguments: dict[str, Any] = {}
    for field in fields_of(noun):
        if field.key not in value:
            if field.required:
                _report(errors, f"{at}/{field.key}", REQUIRED, "is required")
        elif type(field.shape) is Plain and type(value[field.key]) is field.shape.type:  # nearly all of them
            arguments[field.argument] = value[field.key]
        else:
            arguments[field.argument] = read(field.shape, value[field.key], f"{at}/{field.key}", errors)
    for key in value.keys() - keys_of(noun):
        _report(errors, at + pointer_to(key), UNKNOWN_FIELD, f"{noun.__name__} has no such field")
    return _BAD if len(errors) > before or len(errors) >= FIELD_ERRORS_MAX else noun(**arguments)


def _read_choice(choices: type[Enum], value: Any, at: str, errors: list[FieldError]) -> Any:
    if not isinstance(value, str):
        return _report(errors, at, WRONG_TYPE, "must be a string")
    try:
        return choices(value)
    except ValueError:
        return _report(errors, at, INVALID, "must be one of " + ", ".join(choice.value for choice in choices))


def _read_moment(value: Any, at: str, errors: list[FieldError]) -> Any:
    if not isinstance(value, str):
        return _report(errors, at, WRONG_TYPE, "must be a string")
    try:
        moment = msgspec.convert(value, datetime)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        pass
    return _report(errors, at, INVALID, "must be a date and time of RFC 3339 with its offset")


# Writing


def _plain(value: Any, *, reveal: bool) -> Any:
    kind = type(value)
    if kind in _AS_IS:  # nearly all values, and tuples and nouns are nearly all others
        return value
    if kind is tuple:
        return [_plain(item, reveal=reveal) for item in value]
    noun = _written(kind)
    if noun is not None:
        return noun(value, reveal)
    match value:
        case Enum():
            return value.value
        case bool() | float() | int() | str():
            return value
        case Secret():
            return value.reveal() if reveal else REDACTED
        case list() | tuple():
            return [_plain(item, reveal=reveal) for item in value]
        case Mapping():
            return {key: _plain(item, reveal=reveal) for key, item in value.items()}
        case datetime():
            return _moment_text(value)
    raise TypeError(f"a {kind.__name__} cannot become JSON")


def _writer(cls: Any) -> Callable[[Any, bool], dict[str, Any]] | None:
    """What makes plain JSON of a value of this class; None if it is no noun."""
    if not attrs.has(cls):
        return None
    names = [(field.key, field.name) for field in fields_of(cls)]
    if is_one_of(cls):
        return lambda noun, reveal: {
            key: _plain(value, reveal=reveal) for key, name in names if (value := getattr(noun, name)) is not None
        }
    return lambda noun, reveal: {
        key: value if type(value := getattr(noun, name)) in _AS_IS else _plain(value, reveal=reveal)
        for key, name in names
    }


def _moment_text(moment: datetime) -> str:
    if moment.tzinfo is None:
        raise TypeError("a datetime without an offset cannot become JSON")
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


# Schemas


def _schema(shape: Shape, definitions: dict[str, Any], prefix: str) -> dict[str, Any]:
    match shape:
        case Plain():
            return {"type": _SCHEMA_TYPES[shape.type], **_schema_limits(shape.limits)}
        case Hidden():
            return {"type": "string", "format": "password", **_schema_limits(shape.limits)}
        case Moment():
            return {"type": "string", "format": "date-time"}
        case Choice():
            return {"type": "string", "enum": [choice.value for choice in shape.type]}
        case Maybe():
            return {"anyOf": [_schema(shape.inner, definitions, prefix), {"type": "null"}]}
        case Sequence():
            items = _schema(shape.items, definitions, prefix)
            return {"type": "array", "items": items, **_schema_limits(shape.limits)}
        case Table():
            values = _schema(shape.values, definitions, prefix)
            return {"type": "object", "additionalProperties": values}
        case Anything():
            return {}
        case Noun():
            return _schema_reference(shape.type, definitions, prefix)
        case _:
            assert_never(shape)


def _schema_reference(noun: type[Any], definitions: dict[str, Any], prefix: str) -> dict[str, Any]:
    name = noun.__name__
    if name not in definitions:
        definitions[name] = definition = {}  # present before its fields are read: nouns may contain themselves
        definition.update(_schema_noun(noun, definitions, prefix))
    return {"$ref": prefix + name}


def _schema_noun(noun: type[Any], definitions: dict[str, Any], prefix: str) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    one_of = is_one_of(noun)
    for field in fields_of(noun):
        shape = field.shape.inner if one_of and isinstance(field.shape, Maybe) else field.shape
        properties[field.key] = _schema(shape, definitions, prefix)
    result = {
        "type": "object",
        "description": inspect.cleandoc(noun.__doc__ or ""),
        "properties": properties,
        "required": [field.key for field in fields_of(noun) if field.required],
        "additionalProperties": False,
    }
    return {**result, "minProperties": 1, "maxProperties": 1} if one_of else result


def _schema_limits(limits: Limits) -> dict[str, Any]:
    """Bounds in bytes become bounds in characters, which are never stricter."""
    bounds = {
        "minimum": limits.minimum,
        "maximum": limits.maximum,
        "minLength": 1 if limits.bytes_min else None,
        "maxLength": limits.bytes_max,
        "maxItems": limits.items_max,
        "uniqueItems": limits.unique or None,
        "pattern": None if limits.pattern is None else f"^(?:{limits.pattern.pattern})$",
    }
    return {key: bound for key, bound in bounds.items() if bound is not None}
