"""Models as messages, and messages as models. Pure. What a client sent wrong is told as the native API tells it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Items
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, TypeVar

import msgspec
from google.protobuf.message import DecodeError, Message

from bbs.api.desired_lrps import executed
from bbs.diego_api.descriptors import MESSAGES
from bbs.diego_api.nouns import (
    EMPTY_IS_DEFAULT,
    ENUMERATIONS,
    JSON_MAPS,
    JSON_TEXTS,
    NOT_EXECUTED,
    NOT_READ,
    NOUN_MESSAGES,
    OLD_FIELDS,
    PRESENCE,
)
from diego_py import wire
from diego_py.bad_fields import bad_fields
from diego_py.errors import MalformedProtobuf
from diego_py.http.server import invalid_fields
from diego_py.models.cell import CellPresence
from diego_py.models.fields import INVALID, TOO_LONG, UNSUPPORTED_FIELD, FieldError
from diego_py.models.shapes import Choice, Field, Maybe, Noun, Sequence, Shape, Table, fields_of
from diego_py.models.validation import JSON_DEPTH_MAX, depth_exceeds

T = TypeVar("T")

DEPTH_MAX: Final = JSON_DEPTH_MAX - 4
"""Nesting of what is stored as JSON, inside of other JSON."""
_ABSENT: Final = object()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MESSAGE_OF: Final = {message.noun: message for message in NOUN_MESSAGES}


# Messages to models


def parse(name: str, body: bytes) -> Message:
    """The message that `body` is. Unknown fields are ignored. Raises MalformedProtobuf."""
    try:
        message: Message = MESSAGES[name].FromString(body)
    except DecodeError as error:
        raise MalformedProtobuf(f"the body is not a {name}") from error
    return message


def model(noun: type[T], message: Message) -> T:
    """The model that a message says. See `validate` for what its values may be.

    Raises InvalidSpec with every field that is missing or wrong, UnsupportedField for one that no model has.
    """
    told = builtins(noun, message)
    if depth_exceeds(told, DEPTH_MAX):
        raise invalid_fields([FieldError("/action", TOO_LONG, f"is nested deeper than {DEPTH_MAX} levels")])
    try:
        return wire.convert(noun, told)
    except wire.InvalidFields:
        raise invalid_fields(bad_fields(noun, told)) from None


def builtins(noun: type[Any], message: Message) -> dict[str, Any]:
    """What the model would be in JSON. Without the fields that are not there, so that they have the model's default."""
    if noun in NOT_EXECUTED:
        _refuse_what_is_not_executed(*NOT_EXECUTED[noun], message)
    told = {}
    for field, at in _fields(noun):
        value = _value(message, field, at)
        if value is not _ABSENT:
            told[field.key] = value
    return told


def _refuse_what_is_not_executed(key: str, instead: str, message: Message) -> None:
    if getattr(message, key):
        executed([FieldError(f"/{key}", UNSUPPORTED_FIELD, f"is not supported by this release: {instead}")])


def routes(message: Message) -> dict[str, Any]:
    """The JSON of a ProtoRoutes. Raises InvalidSpec."""
    return {name: _json("/routes", text) for name, text in message.routes.items()}


def _fields_on_the_wire(noun: Any) -> tuple[tuple[Field, str], ...]:
    message = _MESSAGE_OF[noun]
    named = ((field, f"{message.message}.{field.key}") for field in fields_of(noun) if field.key in message.numbers)
    return tuple((field, at) for field, at in named if at not in NOT_READ)


_fields: Callable[[Any], tuple[tuple[Field, str], ...]] = cache(_fields_on_the_wire)
"""The fields of a model that are read from the wire, and what each is called in the tables."""


def _value(message: Message, field: Field, at: str) -> Any:
    optional = isinstance(field.shape, Maybe)
    shape = field.shape.inner if isinstance(field.shape, Maybe) else field.shape
    value = getattr(message, field.key)
    if at in OLD_FIELDS and not value:
        old, meant = OLD_FIELDS[at]
        return meant(getattr(message, old))
    if at in JSON_MAPS:
        return routes(value)
    if at in JSON_TEXTS:
        return _json(f"/{field.key}", value.encode()) if value else {}
    if (isinstance(shape, Noun) or at in PRESENCE) and not message.HasField(field.key):
        return _ABSENT
    if at in EMPTY_IS_DEFAULT and not value:
        return _ABSENT
    if isinstance(shape, Choice):
        return _choice(shape, value, optional)
    return _composite(shape, value)


def _composite(shape: Shape, value: Any) -> Any:
    match shape:
        case Noun():
            return builtins(shape.type, value)
        case Sequence():
            return [_composite(shape.items, item) for item in value]
        case Table():
            return {key: _composite(shape.values, item) for key, item in value.items()}
        case _:
            return value


def _choice(shape: Choice, value: Any, optional: bool) -> Any:
    numbers = ENUMERATIONS.get(shape.type)
    if numbers is None:
        return value or (None if optional else _ABSENT)
    name = next((name for name, number in numbers.items() if number == value), str(value))
    known = name in {choice.value for choice in shape.type}
    if value == 0 and not known:
        return None if optional else _ABSENT
    return name


def _json(pointer: str, text: bytes) -> Any:
    try:
        return wire.parse(text)
    except wire.MalformedJSON as malformed:
        raise invalid_fields([FieldError(pointer, INVALID, "must be JSON")]) from malformed


# Models to messages


def presence(cell: CellPresence) -> dict[str, Any]:
    """A cell, to make a CellPresence from."""
    told = wire.to_builtins(cell)
    address = {"rep_address": cell.url, "rep_url": cell.url}
    return {**{key: told[key] for key in _CELL_KEYS if key in told}, **address}


def outward(definition: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a definition, changed where the wire's shape differs: what its message is made from. Consumes it.

    Without what is empty, which on the wire is the same as what is not there.
    """
    if "routes" in definition:
        definition["routes"] = proto_routes(definition["routes"])
    for mount in definition["volume_mounts"]:
        device = mount["shared"]
        device["mount_config"] = msgspec.json.encode(device["mount_config"]).decode()
    checks = definition.get("check_definition")
    if checks is not None:
        for kind in ("checks", "readiness_checks"):
            checks[kind] = [check for check in checks[kind] if "command" not in check]
    known = _DESIRED_KEYS if "process_guid" in definition else _TASK_KEYS
    return {key: value for key, value in definition.items() if value and key in known}


def proto_routes(routes: Mapping[str, Any]) -> dict[str, Any]:
    """A ProtoRoutes, to make a message from."""
    return {"routes": {name: msgspec.json.encode(value) for name, value in routes.items()}}


def encoder(name: str, key: str) -> Callable[[dict[str, Any]], bytes]:
    """What makes one of the values of a field that is repeated, delimited."""
    make = MESSAGES[MESSAGES[name].DESCRIPTOR.fields_by_name[key].message_type.name]

    def encode(value: dict[str, Any]) -> bytes:
        return delimited(make(**value).SerializeToString())

    return encode


def delimited(body: bytes) -> bytes:
    """A message as it is the value of a field: behind its length."""
    return _varint(len(body)) + body


def repeated(name: str, key: str, items: Items[bytes]) -> bytes:
    """A message of nothing but these values of one field, each delimited. Messages after each other are one, too.

    Each value is made and encoded by itself: many dicts alive at once make Python's collector look through them.
    """
    tag = _varint(MESSAGES[name].DESCRIPTOR.fields_by_name[key].number << 3 | 2)
    return tag + tag.join(items) if items else b""


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def nanoseconds(moment: datetime | None) -> int:
    """A time as Diego tells it; 0 for none."""
    if moment is None:
        return 0
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000


_DESIRED_KEYS: Final = frozenset(MESSAGES["DesiredLRP"].DESCRIPTOR.fields_by_name.keys())
_CELL_KEYS: Final = MESSAGES["CellPresence"].DESCRIPTOR.fields_by_name.keys()
_TASK_KEYS: Final = frozenset(MESSAGES["TaskDefinition"].DESCRIPTOR.fields_by_name.keys())
