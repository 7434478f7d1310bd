"""Models through the messages and back, and bodies that are no messages."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bbs.diego_api import codec, versions
from bbs.diego_api.descriptors import MESSAGES
from bbs.diego_api.nouns import NOUN_MESSAGES
from diego_py import wire
from diego_py.errors import InvalidSpec, MalformedProtobuf, UnsupportedField
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


def through_json(noun: Any) -> Any:
    """The noun as the native API reads what it writes, without what Diego takes and does nothing with."""
    return wire.convert(type(noun), without_nproc(wire.to_builtins_revealed(noun)))


def without_nproc(told: Any) -> Any:
    if isinstance(told, dict):
        return {key: without_nproc(value) for key, value in told.items() if key != "nproc"}
    return [without_nproc(item) for item in told] if isinstance(told, list) else told


@QUICK
@given(strategies.desired_lrp_definitions())
def test_an_lrp_is_the_same_after_the_way_through_its_message(definition: DesiredLRPDefinition) -> None:
    stored = msgspec.json.decode(wire.encode_revealed(definition))
    body = MESSAGES["DesiredLRP"](**codec.outward(stored)).SerializeToString()
    read = codec.model(DesiredLRPDefinition, codec.parse("DesiredLRP", body))
    assert through_json(read) == through_json(without_what_the_wire_has_not(definition))


@QUICK
@given(strategies.task_definitions(), strategies.task_guids, strategies.domains)
def test_a_task_is_the_same_after_the_way_through_its_message(
    definition: TaskDefinition, guid: Any, domain: Any
) -> None:
    stored = codec.outward(wire.to_builtins_revealed(definition))
    body = MESSAGES["DesireTaskRequest"](definition=stored, task_guid=guid, domain=domain).SerializeToString()
    read = codec.model(TaskRequest, codec.parse("DesireTaskRequest", body))
    assert through_json(read) == through_json(TaskRequest(task_guid=guid, domain=domain, definition=definition))


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
    assert read == through_json(without_what_the_wire_has_not(definition))


def test_every_field_of_a_noun_is_on_the_wire_or_known_not_to_be() -> None:
    left_out = {
        f"{message.message}.{field.key}"
        for message in NOUN_MESSAGES
        for field in wire.fields_of(message.noun)
        if field.key not in message.numbers
    }
    assert left_out == {"Check.command"}


LAYERS = [
    {
        "name": "shared",
        "url": "http://a/b",
        "destination_path": "/s",
        "layer_type": 1,
        "media_type": 1,
        "digest_algorithm": 1,
        "digest_value": "5",
    },
    {"name": "by url", "url": "http://a/c", "destination_path": "/u", "layer_type": 1, "media_type": 2},
    {
        "name": "own",
        "url": "http://a/d",
        "destination_path": "/e",
        "layer_type": 2,
        "media_type": 1,
        "digest_algorithm": 1,
        "digest_value": "7",
    },
]


def test_layers_are_dependencies_and_downloads_for_who_knows_no_layers() -> None:
    known = {"name": "", "from": "http://a/z", "to": "/z"}
    sent = lrp(image_layers=LAYERS, legacy_download_user="vcap", cached_dependencies=[known], setup=run("true"))
    told = definition_of("DesiredLRP", versions.lrp_without_layers(json_of(DesiredLRPDefinition, sent)))
    assert told["image_layers"] == []
    assert [(each["from"], each["to"], each["cache_key"]) for each in told["cached_dependencies"]] == [
        ("http://a/b", "/s", "sha256:5"),
        ("http://a/c", "/u", "http://a/c"),
        ("http://a/z", "/z", ""),
    ]
    shared, by_url, _ = told["cached_dependencies"]
    assert (shared["checksum_algorithm"], shared["checksum_value"]) == ("sha256", "5")
    assert (by_url["checksum_algorithm"], by_url["checksum_value"]) == ("", "")
    downloads, then = told["setup"]["serial_action"]["actions"]
    (download,) = downloads["parallel_action"]["actions"]
    own = {"artifact": "own", "from": "http://a/d", "to": "/e", "cache_key": "sha256:7", "user": "vcap"}
    assert own.items() <= download["download_action"].items()
    assert (download["download_action"]["checksum_algorithm"], then) == ("sha256", decoded_action(run("true")))
    assert valid_again(DesiredLRPDefinition, "DesiredLRP", told)


def test_layers_without_a_setup_and_setups_without_a_layer() -> None:
    sent = lrp(image_layers=LAYERS[2:], legacy_download_user="vcap")
    told = definition_of("DesiredLRP", versions.lrp_without_layers(json_of(DesiredLRPDefinition, sent)))
    assert len(told["setup"]["parallel_action"]["actions"]) == 1
    for layers in ([], LAYERS[:1]):
        sent = lrp(image_layers=layers, setup=run("true"))
        told = definition_of("DesiredLRP", versions.lrp_without_layers(json_of(DesiredLRPDefinition, sent)))
        assert told["setup"] == decoded_action(run("true"))
    task_sent = task(image_layers=LAYERS, legacy_download_user="vcap")["task_definition"]
    told = definition_of("TaskDefinition", versions.task_without_layers(json_of(TaskDefinition, task_sent)))
    downloads, then = told["action"]["serial_action"]["actions"]
    assert len(downloads["parallel_action"]["actions"]) == 1
    assert then == decoded_action(run("exit 0"))
    assert valid_again(TaskDefinition, "TaskDefinition", told)


def json_of(noun: Any, sent: dict[str, Any]) -> dict[str, Any]:
    """What is stored of a definition that was sent."""
    name = "DesiredLRP" if noun is DesiredLRPDefinition else "TaskDefinition"
    told: dict[str, Any] = wire.to_builtins_revealed(codec.model(noun, codec.parse(name, encode(name, sent))))
    return told


def definition_of(name: str, told: dict[str, Any]) -> dict[str, Any]:
    """How a client reads a definition that is told."""
    return decode(name, MESSAGES[name](**codec.outward(told)).SerializeToString())


def decoded_action(action: dict[str, Any]) -> dict[str, Any]:
    return decode("Action", encode("Action", action))


def valid_again(noun: Any, name: str, told: dict[str, Any]) -> bool:
    return validate(codec.model(noun, codec.parse(name, encode(name, told)))) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"deprecated_start_timeout_s": 60}, {"start_timeout_ms": 60_000}),
        ({"deprecated_start_timeout_s": 60, "start_timeout_ms": 5}, {"start_timeout_ms": 5}),
        (
            {"action": {"timeout_action": {"action": run("true"), "deprecated_timeout_ns": 2_500_000_000}}},
            {"action": {"timeout_action": {"action": run("true"), "timeout_ms": 2500}}},
        ),
        (
            {"action": {"timeout_action": {"action": run("true"), "deprecated_timeout_ns": 7, "timeout_ms": 9}}},
            {"action": {"timeout_action": {"action": run("true"), "timeout_ms": 9}}},
        ),
        (
            {"action": run("true", resource_limits={"nofile": 9, "nproc": 5})},
            {"action": run("true", resource_limits={"nofile": 9})},
        ),
    ],
)
def test_old_fields_count_where_the_new_one_is_not_set(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert json_of(DesiredLRPDefinition, lrp(**old)) == json_of(DesiredLRPDefinition, lrp(**new))


def test_what_a_message_says_and_no_model_can_is_refused() -> None:
    sent = lrp(action=run("true", volume_mounted_files=[{"path": "a", "content": "b"}]))
    with pytest.raises(UnsupportedField) as refused:
        json_of(DesiredLRPDefinition, sent)
    assert [error["pointer"] for error in refused.value.errors] == ["/volume_mounted_files"]


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
        except (MalformedProtobuf, InvalidSpec, UnsupportedField):
            refused += 1
    assert 5_000 < refused < 10_000


@QUICK
@given(st.sampled_from(sorted({takes for takes, _ in ROUTES.values() if takes})), st.data())
def test_any_body_of_any_request_is_read_or_refused(name: str, data: st.DataObject) -> None:
    known = name if name in MESSAGES else "EvacuateInstanceRequest"
    for body in data.draw(st.lists(st.binary(max_size=60), min_size=150, max_size=150)):
        with suppress(MalformedProtobuf):
            codec.parse(known, body)
