"""Message classes of google's protobuf runtime, made from the models and the numbers of `nouns` and `envelopes`.

The names of fields are the JSON names of the models: a message is made from what `wire.to_builtins` gives, at once.
Types follow from limits: int32 where no value needs more. An integer is the same bytes whatever its type says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from bbs.diego_api.envelopes import ENVELOPES, Fields
from bbs.diego_api.nouns import (
    ENUMERATIONS,
    JSON_MAPS,
    JSON_TEXTS,
    NOUN_MESSAGES,
    PRESENCE,
    UNPACKED,
    NounMessage,
)
from diego_py.models.fields import INT32_MAX
from diego_py.models.shapes import Choice, Maybe, Noun, Plain, Sequence, Shape, Table, fields_of

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
}
_PACKAGE: Final = "models"
_NAMES: Final = {message.noun: message.message for message in NOUN_MESSAGES}


def _build() -> Mapping[str, type[Message]]:
    file = descriptor_pb2.FileDescriptorProto(name="diego.proto", package=_PACKAGE, syntax="proto3")
    for noun in NOUN_MESSAGES:
        _add(file, noun.message, _fields_of_noun(noun))
    for name, fields in ENVELOPES.items():
        _add(file, name, fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = [message.name for message in file.message_type]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in names}


def _fields_of_noun(message: NounMessage) -> Fields:
    shapes = {field.key: field.shape for field in fields_of(message.noun)}
    fields = {
        key: (number, _type_of(shapes[key], f"{message.message}.{key}")) for key, number in message.numbers.items()
    }
    return {**fields, **message.extra}


def _type_of(shape: Shape, at: str) -> str:
    """The type of a field, in the words of `envelopes`."""
    if at in JSON_MAPS:
        return "ProtoRoutes"
    if at in JSON_TEXTS:
        return "string"
    match shape:
        case Maybe():
            return ("optional " if at in PRESENCE else "") + _type_of(shape.inner, at)
        case Sequence():
            return "repeated " + _type_of(shape.items, at)
        case Table():
            return "map " + _type_of(shape.values, at)
        case Noun():
            return _NAMES[shape.type]
        case Choice():
            return f"enum {shape.type.__name__}" if shape.type in ENUMERATIONS else "string"
        case Plain():
            return _plain_type(shape)
        case _:
            return "string"


def _plain_type(shape: Plain) -> str:
    if shape.type is int:
        maximum = shape.limits.maximum
        return "int32" if maximum is not None and maximum <= INT32_MAX else "int64"
    return "bool" if shape.type is bool else "string"


def _add(file: descriptor_pb2.FileDescriptorProto, name: str, fields: Fields) -> None:
    message = file.message_type.add(name=name)
    for key, (number, kind) in fields.items():
        label, _, inner = kind.rpartition(" ") if not kind.startswith("enum") else ("", "", kind)
        field = message.field.add(name=key, number=number, label=_Field.LABEL_OPTIONAL)
        if label == "map":
            _map_entry(message, key, inner)
            field.label, field.type = _Field.LABEL_REPEATED, _Field.TYPE_MESSAGE
            field.type_name = f".{_PACKAGE}.{name}.{_entry_name(key)}"
            continue
        _set_type(message, field, inner)
        if label == "repeated":
            field.label = _Field.LABEL_REPEATED
            if f"{name}.{key}" in UNPACKED:
                field.options.packed = False
        if label == "optional":
            field.proto3_optional, field.oneof_index = True, len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{key}")


def _set_type(message: descriptor_pb2.DescriptorProto, field: descriptor_pb2.FieldDescriptorProto, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    elif kind.startswith("enum "):
        field.type = _Field.TYPE_ENUM
        field.type_name = f".{_PACKAGE}.{message.name}.{_enumeration(message, kind.removeprefix('enum '))}"
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"


def _enumeration(message: descriptor_pb2.DescriptorProto, name: str) -> str:
    if all(known.name != name for known in message.enum_type):
        made = message.enum_type.add(name=name)
        numbers = next(numbers for choices, numbers in ENUMERATIONS.items() if choices.__name__ == name)
        for value, number in numbers.items():
            made.value.add(name=value, number=number)
    return name


def _map_entry(message: descriptor_pb2.DescriptorProto, key: str, kind: str) -> None:
    entry = message.nested_type.add(name=_entry_name(key))
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_STRING)
    value = entry.field.add(name="value", number=2, label=_Field.LABEL_OPTIONAL)
    _set_type(entry, value, kind)


def _entry_name(key: str) -> str:
    return "".join(part.capitalize() for part in key.split("_")) + "Entry"


MESSAGES: Final[Mapping[str, Any]] = _build()
"""Message classes by Diego's names."""
