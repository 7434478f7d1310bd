import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diego_py import wire
from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.cell import CellPresence
from diego_py.models.desired_lrp import DesiredLRP, DesiredLRPDefinition, DesiredLRPUpdate
from diego_py.models.fields import FieldError
from diego_py.models.task import Task, TaskDefinition, TaskRequest
from diego_py.models.validation import FIELD_ERRORS_MAX, JSON_DEPTH_MAX
from diego_py.models.workload import ModificationTag
from diego_py.secret import Secret
from tests import strategies

SMALLEST: dict[str, Any] = {
    "process_guid": "p",
    "domain": "d",
    "rootfs": "preloaded:x",
    "action": {"run": {"path": "/x", "user": "root"}},
}


def errors_of(cls: type[Any], builtins: Any) -> list[tuple[str, str]]:
    with pytest.raises(wire.InvalidFields) as failure:
        wire.decode(cls, json.dumps(builtins).encode())
    return [(error.pointer, error.code) for error in failure.value.errors]


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (DesiredLRPDefinition, strategies.desired_lrp_definitions()),
        (TaskDefinition, strategies.task_definitions()),
        (ActualLRP, strategies.actual_lrps()),
        (CellPresence, strategies.cell_presences),
        (Task, strategies.tasks),
        (DesiredLRP, strategies.desired_lrps),
    ],
)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_decode_undoes_encode_revealed(cls: type[Any], values: st.SearchStrategy[Any], data: st.DataObject) -> None:
    value = data.draw(values)
    body = wire.encode_revealed(value)
    assert wire.decode(cls, body) == value
    assert wire.encode_revealed(wire.decode(cls, body)) == body


@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_raise_only_our_errors(body: bytes) -> None:
    with pytest.raises((wire.MalformedJSON, wire.InvalidFields)):
        wire.decode(DesiredLRPDefinition, body)


@settings(max_examples=300, deadline=None)
@given(strategies.json_values)
def test_random_json_raises_only_field_errors(value: Any) -> None:
    with pytest.raises(wire.InvalidFields) as failure:
        wire.decode(DesiredLRPDefinition, json.dumps(value).encode())
    assert failure.value.errors


@settings(max_examples=200, deadline=None)
@given(strategies.desired_lrp_definitions(), st.data())
def test_a_damaged_body_raises_only_our_errors(definition: DesiredLRPDefinition, data: st.DataObject) -> None:
    body = bytearray(wire.encode_revealed(definition))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        wire.decode(DesiredLRPDefinition, bytes(body))
    except (wire.MalformedJSON, wire.InvalidFields):
        return


@pytest.mark.parametrize(
    ("body", "offset"),
    [
        (b"", 0),
        (b'{"a":', 5),
        (b'{"a":1}x', 7),
        (b'{"a":NaN}', 5),
        (b'{"a":Infinity}', 5),
        (b'{"a":"\xff"}', 6),
        (b'{"a":"\\ud800\\u0041"}', None),
        (b'{"a":"\\udc00"}', None),
        (b'{"a":1,"a":2}', None),
        (b'{"b":{"a":1,"\\u0061":2}}', None),
        (b'{"a":1e999}', None),
        (b'{"a":9223372036854775808}', None),
        (b'{"a":123456789012345678901234567890}', None),
        (b"[" * 100_000, None),
        (b'{"a":' * 100_000, None),
        (b"[" * 100 + b"]" * 100, None),
        (b'\xef\xbb\xbf{"a":1}', 0),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(body: bytes, offset: int | None) -> None:
    with pytest.raises(wire.MalformedJSON) as failure:
        wire.decode(DesiredLRPDefinition, body)
    if offset is not None:
        assert failure.value.offset == offset
        assert str(failure.value).endswith(f"at byte {offset}")


def test_json_may_nest_as_deep_as_the_limit() -> None:
    body = b"[" * JSON_DEPTH_MAX + b"]" * JSON_DEPTH_MAX
    assert wire.parse(body) == json.loads(body)
    with pytest.raises(wire.MalformedJSON, match="nested deeper"):
        wire.parse(b"[" + body + b"]")


def test_every_bad_field_is_reported_at_once() -> None:
    body = {
        "process_guid": 7,
        "domian": "d",
        "rootfs": None,
        "instances": True,
        "action": {"run": {"path": "/x", "args": ["a", 1], "sudo": True}, "walk": {}},
        "environment_variables": [{"name": "A"}, "B", {"value": 3}],
        "ports": {"a": 1},
        "update_strategy": "SLOWLY",
        "metric_tags": {"a/b~c": {"static": 1}},
        "privileged": "no",
    }
    assert errors_of(DesiredLRPDefinition, body) == [
        ("/process_guid", "wrong_type"),
        ("/domain", "required"),
        ("/rootfs", "wrong_type"),
        ("/instances", "wrong_type"),
        ("/environment_variables/1", "wrong_type"),
        ("/environment_variables/2/name", "required"),
        ("/environment_variables/2/value", "wrong_type"),
        ("/action/run/args/1", "wrong_type"),
        ("/action/run/sudo", "unknown_field"),
        ("/action/walk", "unknown_field"),
        ("/privileged", "wrong_type"),
        ("/ports", "wrong_type"),
        ("/metric_tags/a~1b~0c/static", "wrong_type"),
        ("/update_strategy", "invalid"),
        ("/domian", "unknown_field"),
    ]


def test_rubbish_does_not_become_a_report_of_megabytes() -> None:
    rubbish = {f"{number}-{'x' * 1000}": 1 for number in range(1000)}
    with pytest.raises(wire.InvalidFields) as failure:
        wire.decode(DesiredLRPUpdate, json.dumps(rubbish).encode())
    assert len(failure.value.errors) == FIELD_ERRORS_MAX
    assert all(len(error.pointer) < 200 for error in failure.value.errors)


@pytest.mark.parametrize("body", ["[]", "null", "1", '"text"'])
def test_a_body_that_is_no_object_is_named_as_the_whole(body: str) -> None:
    assert errors_of(DesiredLRPUpdate, json.loads(body)) == [("", "wrong_type")]


def test_errors_never_quote_a_value() -> None:
    body = {**SMALLEST, "image_password": ["canary"], "environment_variables": [{"name": "A", "value": {"canary": 1}}]}
    with pytest.raises(wire.InvalidFields) as failure:
        wire.decode(DesiredLRPDefinition, json.dumps(body).encode())
    assert "canary" not in str(failure.value) + repr(failure.value.errors)


def test_defaults_fill_what_is_absent_and_secrets_are_wrapped() -> None:
    definition = wire.convert(
        DesiredLRPDefinition, {**SMALLEST, "environment_variables": [{"name": "A", "value": "canary"}]}
    )
    assert definition.instances == 1
    assert definition.metric_tags == {}
    assert definition.environment_variables[0].value == Secret("canary")


def test_only_the_revealing_encoder_shows_secrets() -> None:
    body = {
        **SMALLEST,
        "environment_variables": [{"name": "A", "value": "canary"}],
        "image_username": "u",
        "image_password": "canary",
        "volume_mounted_files": [{"path": "f", "content": "canary"}],
    }
    definition = wire.convert(DesiredLRPDefinition, body)
    assert b"canary" not in wire.encode(definition)
    assert wire.encode(definition).count(b'"***"') == 3
    assert wire.encode_revealed(definition).count(b"canary") == 3
    assert wire.to_builtins(definition)["image_password"] == "***"
    assert wire.to_builtins_revealed(definition)["image_password"] == "canary"


def test_json_names_have_no_trailing_underscore_and_wrappers_no_nulls() -> None:
    action = {"try": {"action": {"download": {"from": "http://a/b", "to": "/tmp", "user": "root"}}}}
    definition = wire.convert(DesiredLRPDefinition, {**SMALLEST, "action": action})
    written = wire.to_builtins(definition)
    assert list(written["action"]) == ["try"]
    assert written["action"]["try"]["action"]["download"]["from"] == "http://a/b"
    assert written["setup"] is None


def test_moments_are_rfc_3339_in_utc() -> None:
    tag = ModificationTag(epoch="e", index=0)
    noon = datetime(2030, 1, 2, 12, 0, 0, 5, tzinfo=timezone(timedelta(hours=2)))
    definition = wire.convert(DesiredLRPDefinition, SMALLEST)
    stored = DesiredLRP(definition=definition, modification_tag=tag, created_at=noon, updated_at=noon)
    written = wire.to_builtins_revealed(stored)
    assert written["created_at"] == "2030-01-02T10:00:00.000005Z"
    assert wire.convert(DesiredLRP, written).created_at.tzinfo is UTC
    for bad in ("2030-01-02T10:00:00", "yesterday", "0001-01-01T00:00:00+23:59", ""):
        assert errors_of(DesiredLRP, {**written, "created_at": bad}) == [("/created_at", "invalid")]
    with pytest.raises(TypeError, match="without an offset"):
        wire.encode(attrs.evolve(stored, created_at=datetime(2030, 1, 2)))


def test_lists_and_maps_of_nouns_decode() -> None:
    tag = {"epoch": "e", "index": 1}
    assert wire.convert(list[ModificationTag], [tag]) == [ModificationTag(epoch="e", index=1)]
    assert wire.convert(dict[str, ModificationTag], {"a": tag}) == {"a": ModificationTag(epoch="e", index=1)}
    assert errors_of(list[ModificationTag], [tag, {}]) == [("/1/epoch", "required"), ("/1/index", "required")]


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", lambda: None])
def test_what_models_may_not_hold_is_not_encoded(value: object) -> None:
    with pytest.raises(TypeError, match="cannot become JSON"):
        wire.encode({"a": value})


@pytest.mark.parametrize("hint", [set[int], int | str, tuple[int, str], dict[int, str], complex])
def test_field_types_outside_the_closed_set_are_our_bug(hint: Any) -> None:
    with pytest.raises(TypeError, match="a model may not have a field"):
        wire.convert(hint, 1)


def _references(node: Any, found: Callable[[str], None]) -> None:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            found(node["$ref"])
        for child in node.values():
            _references(child, found)
    elif isinstance(node, list):
        for child in node:
            _references(child, found)


def test_schema_has_every_noun_once_and_every_limit() -> None:
    result = wire.schema(DesiredLRPDefinition)
    references: set[str] = set()
    _references(result, references.add)
    assert references == {f"#/$defs/{name}" for name in result["$defs"]}
    definition = result["$defs"]["DesiredLRPDefinition"]
    assert definition["required"] == ["process_guid", "domain", "rootfs", "action"]
    assert definition["additionalProperties"] is False
    assert definition["properties"]["ports"]["items"] == {"type": "integer", "minimum": 1, "maximum": 65_535}
    assert definition["properties"]["image_password"]["format"] == "password"
    assert set(result["$defs"]["Action"]["properties"]) >= {"run", "try", "emit_progress"}
    assert result["$defs"]["Action"]["maxProperties"] == 1
    assert msgspec.json.decode(msgspec.json.encode(result)) == result


def test_schemas_serve_several_nouns_under_one_prefix() -> None:
    result = wire.schemas(DesiredLRP, TaskRequest)
    references: set[str] = set()
    _references(result, references.add)
    assert references <= {f"#/components/schemas/{name}" for name in result}
    assert {"DesiredLRP", "TaskRequest", "Action"} <= set(result)


def test_errors_survive_pickling() -> None:
    import pickle

    invalid = pickle.loads(pickle.dumps(wire.InvalidFields([FieldError("/a", "invalid", "x")])))
    malformed = pickle.loads(pickle.dumps(wire.MalformedJSON("bad", 3)))
    assert invalid.errors == (FieldError("/a", "invalid", "x"),)
    assert (malformed.problem, malformed.offset) == ("bad", 3)
