"""Protobuf by hand, from `messages.txt` alone: what a client of Diego sends and understands.

A message is a dict by the field names of that file. What is left out has its zero.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

_VARINTS = ("int32", "int64", "uint32", "uint64", "bool")
_MASK = 2**64 - 1


@frozen
class WireField:
    """One field of a message."""

    number: int
    name: str
    type: str
    """A scalar, `enum`, or the name of a message; of a map: the type of its values."""
    repeated: bool = False
    optional: bool = False
    map: bool = False
    packed: bool = True


@define
class WireMessage:
    """One message: its fields by name and by number."""

    fields: dict[str, WireField] = field(factory=dict)
    enums: dict[str, dict[str, int]] = field(factory=dict)

    def by_number(self, number: int) -> WireField | None:
        return next((one for one in self.fields.values() if one.number == number), None)


def _read_messages() -> dict[str, WireMessage]:
    messages: dict[str, WireMessage] = {}
    message, enum = WireMessage(), {}
    for line in (Path(__file__).parent / "messages.txt").read_text().splitlines():
        if found := re.fullmatch(r"message (\w+)", line):
            message = messages[found[1]] = WireMessage()
        elif found := re.fullmatch(r"  enum (\w+)", line):
            enum = message.enums[found[1]] = {}
        elif found := re.fullmatch(r"    (\d+) (\w+)", line):
            enum[found[2]] = int(found[1])
        elif found := re.fullmatch(r"  (\d+) (\w+)(\?)?: (map<string, (\w+)>|\w+)(\*)?( .*)?", line):
            kind = found[5] or found[4]
            message.fields[found[2]] = WireField(
                number=int(found[1]),
                name=found[2],
                type="enum" if kind in message.enums else kind,
                repeated=bool(found[6]),
                optional=bool(found[3]),
                map=found[5] is not None,
                packed="unpacked" not in (found[7] or ""),
            )
        elif line and not line.startswith("#"):
            raise ValueError(line)
    return messages


SCHEMA = _read_messages()


def encode(name: str, message: Mapping[str, Any]) -> bytes:
    """The bytes of a message. Zeros are left out but for optional fields, as proto3 says."""
    known = SCHEMA[name].fields
    assert message.keys() <= known.keys(), (name, message.keys() - known.keys())
    return b"".join(_encoded(known[key], value) for key, value in message.items() if value is not None)


def _encoded(field: WireField, value: Any) -> bytes:
    if field.map:
        entries = (_tagged(1, "string", key) + _tagged(2, field.type, item) for key, item in value.items())
        return b"".join(_tag(field.number, 2) + _length(entry) for entry in entries)
    if field.repeated and field.packed and field.type in (*_VARINTS, "enum"):
        return _tag(field.number, 2) + _length(b"".join(_varint(item) for item in value)) if value else b""
    if field.repeated:
        return b"".join(_tagged(field.number, field.type, item) for item in value)
    if value in (0, "", b"", False) and not field.optional and field.type not in SCHEMA:
        return b""
    return _tagged(field.number, field.type, value)


def _tagged(number: int, kind: str, value: Any) -> bytes:
    if kind in (*_VARINTS, "enum"):
        return _tag(number, 0) + _varint(int(value))
    body = value.encode() if kind == "string" else value if kind == "bytes" else encode(kind, value)
    return _tag(number, 2) + _length(body)


def _tag(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _length(body: bytes) -> bytes:
    return _varint(len(body)) + body


def _varint(value: int) -> bytes:
    value &= _MASK
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def decode(name: str, body: bytes) -> dict[str, Any]:
    """A message with all its fields: what is not there has its zero, an absent message or optional field is None."""
    message = {field.name: _zero(field) for field in SCHEMA[name].fields.values()}
    at = 0
    while at < len(body):
        tag, at = _read_varint(body, at)
        raw, at = _read_raw(body, at, tag & 7)
        field = SCHEMA[name].by_number(tag >> 3)
        assert field is not None, f"{name} has no field {tag >> 3}"
        _take(message, field, raw)
    return message


def _zero(field: WireField) -> Any:
    if field.map:
        return {}
    if field.repeated:
        return []
    if field.optional or field.type in SCHEMA:
        return None
    return {"string": "", "bytes": b"", "bool": False}.get(field.type, 0)


def _take(message: dict[str, Any], field: WireField, raw: int | bytes) -> None:
    if field.map:
        assert isinstance(raw, bytes)
        entry = _entry(field, raw)
        message[field.name][entry[0]] = entry[1]
    elif field.repeated and field.type in (*_VARINTS, "enum") and isinstance(raw, bytes):
        at = 0
        while at < len(raw):
            item, at = _read_varint(raw, at)
            message[field.name].append(_value(field.type, item))
    elif field.repeated:
        message[field.name].append(_value(field.type, raw))
    else:
        message[field.name] = _value(field.type, raw)


def _entry(field: WireField, raw: bytes) -> tuple[str, Any]:
    key, value, at = "", _zero(WireField(2, "value", field.type)), 0
    while at < len(raw):
        tag, at = _read_varint(raw, at)
        item, at = _read_raw(raw, at, tag & 7)
        if tag >> 3 == 1:
            key = _value("string", item)
        else:
            value = _value(field.type, item)
    return key, {} if value is None else value


def _value(kind: str, raw: int | bytes) -> Any:
    if isinstance(raw, int):
        signed = raw - 2**64 if raw >= 2**63 and kind in ("int32", "int64") else raw
        return bool(raw) if kind == "bool" else signed
    if kind == "string":
        return raw.decode()
    return raw if kind == "bytes" else decode(kind, raw)


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = body[at]
        value, at, shift = value | (byte & 0x7F) << shift, at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _read_raw(body: bytes, at: int, wire_type: int) -> tuple[int | bytes, int]:
    if wire_type == 0:
        return _read_varint(body, at)
    if wire_type == 2:
        size, at = _read_varint(body, at)
        assert at + size <= len(body)
        return body[at : at + size], at + size
    size = {1: 8, 5: 4}[wire_type]
    return struct.unpack_from("<q" if size == 8 else "<i", body, at)[0], at + size
