"""The product's messages against the list that tests have of their own: every number, every type."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import FieldDescriptor

from bbs.diego_api.descriptors import MESSAGES
from tests.diego_api.client import ROUTES
from tests.diego_api.protobuf import SCHEMA, WireField

OWN = {"EvacuateInstanceRequest"}
"""Names that are not on the wire."""
INTEGERS = {"int32", "int64", "uint32", "uint64", "bool", "enum"}
KINDS = {
    FieldDescriptor.TYPE_STRING: {"string"},
    FieldDescriptor.TYPE_BYTES: {"bytes"},
    FieldDescriptor.TYPE_BOOL: {"bool"},
    FieldDescriptor.TYPE_INT32: INTEGERS,
    FieldDescriptor.TYPE_INT64: INTEGERS,
    FieldDescriptor.TYPE_ENUM: {"enum"},
}


def told_alike(field: FieldDescriptor, wire: WireField) -> bool:
    """Whether both are the same bytes. Which integer it is, and what a message is called, is not in them."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return wire.map and told_alike(field.message_type.fields_by_number[2], WireField(2, "value", wire.type))
    if wire.map or field.is_repeated != wire.repeated:
        return False
    if field.message_type is not None:
        return wire.type == field.message_type.name
    packed = field.is_packed == (wire.packed and wire.type in INTEGERS) if wire.repeated else True
    return packed and wire.type in KINDS[field.type]


@pytest.mark.parametrize("name", sorted(set(MESSAGES) - OWN))
def test_every_field_has_diegos_number_and_type(name: str) -> None:
    wire = SCHEMA[name]
    for field in MESSAGES[name].DESCRIPTOR.fields:
        told = wire.by_number(field.number)
        assert told is not None, f"{name} has no field {field.number} ({field.name})"
        assert told_alike(field, told), f"{name}.{field.name} is {told}"


def test_enumerations_have_diegos_numbers() -> None:
    ours = {
        (name, enum.name, value.name.upper(), value.number)
        for name, message in MESSAGES.items()
        for enum in message.DESCRIPTOR.enum_types
        for value in enum.values
    }
    for name, _, value, number in ours:
        numbers = [{key.upper(): told for key, told in enum.items()} for enum in SCHEMA[name].enums.values()]
        assert any(known.get(value) == number for known in numbers), f"{name}: {value} = {number}"


def test_the_list_of_the_tests_is_whole() -> None:
    assert {name for pair in ROUTES.values() for name in pair if name is not None} <= set(SCHEMA)
    assert SCHEMA["DesiredLRP"].fields["ports"].packed is False
    assert SCHEMA["ActualLRP"].fields["routable"].optional is True
    assert len(SCHEMA["Error"].enums["Type"]) == 25
