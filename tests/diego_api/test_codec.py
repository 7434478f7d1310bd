"""Models through the messages and back, and bodies that are no messages."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bbs.diego_api import codec
from bbs.diego_api.descriptors import MESSAGES
from bbs.diego_api.nouns import NOUN_MESSAGES
from diego_py import wire
from diego_py.errors import InvalidSpec, MalformedProtobuf
from diego_py.models.actions import Action
from diego_py.models.checks import Check, CheckDefinition
from diego_py.models.desired_lrp import DesiredLRPDefinition
from diego_py.models.task import TaskDefinition, TaskRequest
from diego_py.models.validation import validate
from tests import strategies
from tests.diego_api.client import ROUTES, lrp, run, task
from tests.diego_api.protobuf import decode, encode

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def without_what_the_wire_has_not(definition: DesiredLRPDefinition) -> DesiredLRPDefinition:
    """Checks by command are our own, and an empty source of a check's lines is its default."""
    told = definition.check_definition
    if told is None:
        return definition

    def kept(checks: tuple[Check, ...]) -> tuple[Check, ...]:
        return tuple(check for check in checks if check.command is None)

    source = told.log_source or CheckDefinition().log_source
    checks = evolve(told, checks=kept(told.checks), readiness_checks=kept(told.readiness_checks), log_source=source)
    return evolve(definition, check_definition=checks)


def through_json(definition: Any) -> Any:
    return wire.decode(type(definition), wire.encode_revealed(definition))


@QUICK
@given(strategies.desired_lrp_definitions())
def test_an_lrp_is_the_same_after_the_way_through_its_message(definition: DesiredLRPDefinition) -> None:
    stored = msgspec.json.decode(wire.encode_revealed(definition))
    body = MESSAGES["DesiredLRP"](**codec.outward(stored)).SerializeToString()
    read = codec.model(DesiredLRPDefinition, codec.parse("DesiredLRP", body))
    assert through_json(read) == without_what_the_wire_has_not(definition)


@QUICK
@given(strategies.task_definitions(), strategies.task_guids, strategies.domains)
def test_a_task_is_the_same_after_the_way_through_its_message(
    definition: TaskDefinition, guid: Any, domain: Any
) -> None:
    stored = codec.outward(wire.to_builtins_revealed(definition))
    body = MESSAGES["DesireTaskRequest"](definition=stored, task_guid=guid, domain=domain).SerializeToString()
    read = codec.model(TaskRequest, codec.parse("DesireTaskRequest", body))
    assert through_json(read) == TaskRequest(task_guid=guid, domain=domain, definition=definition)


@QUICK
@given(strategies.desired_lrp_definitions())
def test_what_another_encoder_writes_is_read_alike(definition: DesiredLRPDefinition) -> None:
    """Through the decoder and the encoder of the tests, which know the list of fields alone.

    An empty static tag is none at all to others.
    """
    tags = {name: tag for name, tag in definition.metric_tags.items() if tag.static != ""}
    definition = evolve(definition, metric_tags=tags)
    stored = msgspec.json.decode(wire.encode_revealed(definition))
    ours = MESSAGES["DesiredLRP"](**codec.outward(stored)).SerializeToString()
    theirs = encode("DesiredLRP", decode("DesiredLRP", ours))
    read = codec.model(DesiredLRPDefinition, codec.parse("DesiredLRP", theirs))
    assert read == without_what_the_wire_has_not(definition)


def test_every_field_of_a_noun_is_on_the_wire_or_known_not_to_be() -> None:
    left_out = {
        f"{message.message}.{field.key}"
        for message in NOUN_MESSAGES
        for field in wire.fields_of(message.noun)
        if field.key not in message.numbers
    }
    assert left_out == {"Check.command"}


def test_unknown_fields_are_ignored() -> None:
    body = encode("DesiredLRP", lrp())
    plain = codec.parse("DesiredLRP", body)
    more = codec.parse("DesiredLRP", body + b"\xfa\x3e\x03abc" + b"\xc0\x3f\x07")
    assert codec.model(DesiredLRPDefinition, more) == codec.model(DesiredLRPDefinition, plain)


def test_integers_come_packed_or_not() -> None:
    one_by_one = codec.parse("DesiredLRP", b"\x70\x50\x70\x51")
    packed = codec.parse("DesiredLRP", b"\x72\x02\x50\x51")
    assert list(one_by_one.ports) == list(packed.ports) == [80, 81]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "pointers"),
    [
        ({"action": None}, {"/action"}),
        ({"action": {}}, {"/action"}),
        ({"process_guid": "a b", "domain": ""}, {"/process_guid", "/domain"}),
        ({"instances": -1, "memory_mb": -5}, {"/instances", "/memory_mb"}),
        ({"ports": [0, 70_000]}, {"/ports/0", "/ports/1"}),
        ({"annotation": "x" * 10_241}, {"/annotation"}),
        ({"metric_tags": {"a": {}}}, {"/metric_tags/a"}),
        ({"egress_rules": [{"protocol": "tcp", "destinations": ["10.0.0.0/8"]}]}, {"/egress_rules/0"}),
        ({"egress_rules": [{"protocol": "ip", "destinations": ["10.0.0.0/8"]}]}, {"/egress_rules/0/protocol"}),
        ({"image_layers": [{"url": "http://a/b", "destination_path": "/"}]}, LAYER := {"layer_type", "media_type"}),
        ({"check_definition": {"checks": [{}]}}, {"/check_definition/checks/0"}),
        ({"log_rate_limit": {"bytes_per_second": -2}}, {"/log_rate_limit/bytes_per_second"}),
        ({"update_strategy": 9}, {"/update_strategy"}),
        ({"image_username": "x"}, {"/image_password"}),
    ],
)
def test_each_bad_field_is_told(changes: dict[str, Any], pointers: set[str]) -> None:
    message = codec.parse("DesiredLRP", encode("DesiredLRP", {**lrp(), **changes}))
    try:
        errors = [error.pointer for error in validate(codec.model(DesiredLRPDefinition, message))]
    except InvalidSpec as invalid:
        errors = [error["pointer"] for error in invalid.errors]
    found = {error.rpartition("/")[2] for error in errors} if pointers is LAYER else set(errors)
    assert found == pointers


def test_json_that_is_none() -> None:
    message = codec.parse("DesiredLRP", encode("DesiredLRP", lrp(routes={"routes": {"cf-router": b"{"}})))
    with pytest.raises(InvalidSpec) as refused:
        codec.model(DesiredLRPDefinition, message)
    assert [error["pointer"] for error in refused.value.errors] == ["/routes"]


def test_depth_is_bounded() -> None:
    """What is accepted can be stored, and read again."""
    action = run("true")
    depths = []
    for depth in range(1, 60):
        action = {"timeout_action": {"action": action, "timeout_ms": 1000}}
        try:
            message = codec.parse("DesiredLRP", encode("DesiredLRP", lrp(action=action)))
            definition = codec.model(DesiredLRPDefinition, message)
        except (InvalidSpec, MalformedProtobuf):
            continue
        depths.append(depth)
        assert through_json(TaskRequest(task_guid="a", domain="b", definition=_task_of(definition)))  # type: ignore[arg-type]
    assert depths == list(range(1, len(depths) + 1))
    assert 20 < len(depths) < 40


def _task_of(definition: DesiredLRPDefinition) -> TaskDefinition:
    action: Action = definition.action
    return TaskDefinition(rootfs=definition.rootfs, action=action)


def test_ten_thousand_random_bodies_are_read_or_refused() -> None:
    """Random bytes, and messages with some bytes changed; what is read is checked, as a request would be."""
    source = random.Random(20_260_704)
    messages = [encode("DesireLRPRequest", {"desired_lrp": lrp()}), encode("DesireTaskRequest", task())]
    refused = 0
    for number in range(10_000):
        name = ("DesireLRPRequest", "DesireTaskRequest")[number % 2]
        if number % 4 < 2:
            body = source.randbytes(source.randrange(60))
        else:
            changed = bytearray(messages[number % 2])
            for _ in range(source.randrange(1, 6)):
                changed[source.randrange(len(changed))] = source.randrange(256)
            body = bytes(changed[: source.randrange(1, len(changed) + 1)])
        try:
            message: Any = codec.parse(name, body)
            if name == "DesireTaskRequest":
                validate(codec.model(TaskRequest, message))
            else:
                validate(codec.model(DesiredLRPDefinition, message.desired_lrp))
        except (MalformedProtobuf, InvalidSpec):
            refused += 1
    assert 5_000 < refused < 10_000


@QUICK
@given(st.sampled_from(sorted({takes for takes, _ in ROUTES.values() if takes})), st.binary(max_size=40))
def test_any_body_of_any_request_is_read_or_refused(name: str, body: bytes) -> None:
    known = name if name in MESSAGES else "EvacuateInstanceRequest"
    try:
        codec.parse(known, body)
    except MalformedProtobuf:
        return
