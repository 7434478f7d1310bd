from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diego_py.models.actions import (
    Action,
    DownloadAction,
    EnvironmentVariable,
    ParallelAction,
    RunAction,
    SerialAction,
    TryAction,
)
from diego_py.models.checks import Check, CheckDefinition, CommandCheck, HTTPCheck, TCPCheck
from diego_py.models.desired_lrp import DesiredLRPDefinition, DesiredLRPUpdate, Sidecar, validate
from diego_py.models.egress import EgressProtocol, ICMPInfo, PortRange, SecurityGroupRule, is_destination
from diego_py.models.identifiers import Domain, ProcessGuid
from diego_py.models.image import CachedDependency, ImageLayer, LayerType, MediaType, VolumeMountedFile
from diego_py.models.workload import DynamicMetricTag, LogRateLimit, MetricTagValue, ModificationTag
from diego_py.secret import REDACTED, Secret
from tests import strategies

RUN = Action(run=RunAction(path="/bin/x", user="root"))
SMALLEST = DesiredLRPDefinition(process_guid=ProcessGuid("p"), domain=Domain("d"), rootfs="preloaded:x", action=RUN)
MIB = 1024 * 1024


def layer(**fields: Any) -> ImageLayer:
    return ImageLayer(url="http://a/b", destination_path="/", media_type=MediaType.TGZ, **fields)


def egress(protocol: EgressProtocol, **fields: Any) -> dict[str, Any]:
    return {"egress_rules": (SecurityGroupRule(protocol=protocol, destinations=("10.0.0.1",), **fields),)}


def variable(name: str, value: str = "") -> EnvironmentVariable:
    return EnvironmentVariable(name=name, value=Secret(value))


def file(path: str, size: int = 0) -> VolumeMountedFile:
    return VolumeMountedFile(path=path, content=Secret("x" * size))


def checks(*checks: Check) -> dict[str, Any]:
    return {"check_definition": CheckDefinition(checks=checks)}


def tags(**values: MetricTagValue) -> dict[str, Any]:
    return {"metric_tags": values}


def test_the_smallest_definition_is_valid() -> None:
    assert validate(SMALLEST) == []
    assert SMALLEST.resources.memory_mb == 0


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"process_guid": "a b"}, [("/process_guid", "invalid")]),
        ({"process_guid": "a\n"}, [("/process_guid", "invalid")]),
        ({"process_guid": ""}, [("/process_guid", "required")]),
        ({"process_guid": "a" * 256}, [("/process_guid", "too_long")]),
        ({"domain": ""}, [("/domain", "required")]),
        ({"rootfs": "noscheme"}, [("/rootfs", "invalid")]),
        ({"instances": -1}, [("/instances", "out_of_range")]),
        ({"disk_mb": -1, "max_pids": -1}, [("/disk_mb", "out_of_range"), ("/max_pids", "out_of_range")]),
        ({"memory_mb": 2**31}, [("/memory_mb", "out_of_range")]),
        ({"start_timeout_ms": -1}, [("/start_timeout_ms", "out_of_range")]),
        ({"ports": (8080, 0, 65_536, 8080)}, [("/ports/1", "out_of_range"), ("/ports/2", "out_of_range"),
                                              ("/ports/3", "duplicate")]),
        ({"routes": {"r": "x" * 128 * 1024}}, [("/routes", "too_long")]),
        ({"annotation": "x" * 10_241}, [("/annotation", "too_long")]),
        ({"log_rate_limit": LogRateLimit(bytes_per_second=-2)}, [("/log_rate_limit/bytes_per_second", "out_of_range")]),
        ({"placement_tags": ("a", "a")}, [("/placement_tags/1", "duplicate")]),
        ({"environment_variables": (variable(""), variable("A=B"), variable("A\0"))},
         [("/environment_variables/0/name", "required"), ("/environment_variables/1/name", "invalid"),
          ("/environment_variables/2/name", "invalid")]),
        ({"environment_variables": (variable("A"), variable("A"))}, [("/environment_variables/1/name", "duplicate")]),
        ({"environment_variables": (variable("A", "\0"),)}, [("/environment_variables/0/value", "invalid")]),
        ({"environment_variables": (variable("A", REDACTED),)}, [("/environment_variables/0/value", "invalid")]),
        ({"image_username": "u"}, [("/image_password", "required")]),
        ({"setup": Action(download=DownloadAction(from_="file:///etc/passwd", to="/", user="u"))},
         [("/setup/download/from", "invalid")]),
        ({"image_password": Secret("p")}, [("/image_username", "required")]),
        ({"volume_mounted_files": (file("a", MIB // 2), file("b", MIB // 2 + 1))},
         [("/volume_mounted_files", "too_long")]),
        ({"volume_mounted_files": (file("a"), file("a"))}, [("/volume_mounted_files/1/path", "duplicate")]),
        ({"volume_mounted_files": (file("/a"), file("a/../b"))},
         [("/volume_mounted_files/0/path", "invalid"), ("/volume_mounted_files/1/path", "invalid")]),
        ({"action": Action()}, [("/action", "exactly_one")]),
        ({"action": Action(parallel=ParallelAction(actions=()))}, [("/action/parallel/actions", "invalid")]),
        ({"action": Action(parallel=ParallelAction(actions=(RUN, Action(run=RunAction(path="", user="u")))))},
         [("/action/parallel/actions/1/run/path", "required")]),
        (checks(Check()), [("/check_definition/checks/0", "exactly_one")]),
        (checks(Check(tcp=TCPCheck(port=1), http=HTTPCheck(port=70_000))),
         [("/check_definition/checks/0", "exactly_one"), ("/check_definition/checks/0/http/port", "out_of_range")]),
        (tags(a=MetricTagValue()), [("/metric_tags/a", "exactly_one")]),
        (tags(a=MetricTagValue(static="", dynamic=DynamicMetricTag.INDEX)), [("/metric_tags/a", "exactly_one")]),
        ({"metrics_guid": "a", **tags(source_id=MetricTagValue(static="b"))}, [("/metrics_guid", "invalid")]),
        ({"image_layers": (layer(layer_type=LayerType.EXCLUSIVE),)},
         [("/image_layers/0/digest_value", "required"), ("/image_layers/0/digest_algorithm", "required"),
          ("/legacy_download_user", "required")]),
        ({"image_layers": (layer(layer_type=LayerType.SHARED, digest_value="x"),)},
         [("/image_layers/0/digest_algorithm", "required")]),
        ({"cached_dependencies": (CachedDependency(from_="http://a/b", to="/", checksum_value="x"),)},
         [("/cached_dependencies/0/checksum_algorithm", "required")]),
        (egress(EgressProtocol.TCP), [("/egress_rules/0", "exactly_one")]),
        (egress(EgressProtocol.UDP, ports=(1,), port_range=PortRange(start=1, end=2)),
         [("/egress_rules/0", "exactly_one")]),
        (egress(EgressProtocol.TCP, port_range=PortRange(start=2, end=1)),
         [("/egress_rules/0/port_range/end", "invalid")]),
        (egress(EgressProtocol.ALL, ports=(1,), port_range=PortRange(start=1, end=1)),
         [("/egress_rules/0/ports", "invalid"), ("/egress_rules/0/port_range", "invalid")]),
        (egress(EgressProtocol.ICMP), [("/egress_rules/0/icmp_info", "required")]),
        (egress(EgressProtocol.ALL, icmp_info=ICMPInfo(type=0, code=-1)), [("/egress_rules/0/icmp_info", "invalid")]),
        ({"egress_rules": (SecurityGroupRule(protocol=EgressProtocol.ALL, destinations=("10.0.0.1, x", "1.1.1.1")),
                           SecurityGroupRule(protocol=EgressProtocol.ALL, destinations=()))},
         [("/egress_rules/0/destinations/0", "invalid"), ("/egress_rules/1/destinations", "required")]),
    ],
)  # fmt: skip
def test_each_bad_field_is_named(fields: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    errors = validate(attrs.evolve(SMALLEST, **fields))
    assert [(error.pointer, error.code) for error in errors] == expected
    assert all(error.detail for error in errors)


SILENT = Action(run=RunAction(args=("x",)))
NAMELESS = Action(run=RunAction(path="x"))


def test_an_image_may_say_what_its_process_is() -> None:
    """Of `action.run` everything, of any other process the user; a directory of the cell's says nothing."""
    checked = checks(Check(command=CommandCheck(path="x")))
    definition = attrs.evolve(SMALLEST, action=SILENT, setup=NAMELESS, monitor=NAMELESS, **checked)
    for rootfs in ("docker:///web", "oci:/srv/web"):
        assert validate(attrs.evolve(definition, rootfs=rootfs)) == []
    assert {(error.pointer, error.code) for error in validate(definition)} == {
        (pointer, "required")
        for pointer in (
            *("/action/run/path", "/action/run/user", "/setup/run/user", "/monitor/run/user"),
            "/check_definition/checks/0/command/user",
        )
    }


@settings(max_examples=50, deadline=None)
@given(strategies.actions)
def test_no_process_but_the_main_one_is_the_images(action: Action) -> None:
    """Wherever it is in a tree."""
    silent = Action(try_=TryAction(action=SILENT))
    tree = Action(serial=SerialAction(actions=(action, silent)))
    at = "/serial/actions/1/try/action/run/path"
    trees = {"action": tree, "setup": tree, "monitor": tree, "sidecars": (Sidecar(action=tree),)}
    definition = attrs.evolve(SMALLEST, rootfs="docker:///web", **trees)
    pointers = {f"{where}{at}" for where in ("/setup", "/action", "/monitor", "/sidecars/0/action")}
    assert {error.pointer for error in validate(definition)} == pointers


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("10.0.0.1", True),
        ("10.0.0.1/8", True),
        ("fd00::/8", True),
        ("10.0.0.1-10.0.0.9", True),
        ("10.0.0.9-10.0.0.1", False),
        ("10.0.0.1-fd00::1", False),
        ("10.0.0.1-10.0.0.2-10.0.0.3", False),
        ("example.com", False),
        ("", False),
        ("1", False),
        ("10.0.0.0/33", False),
    ],
)
def test_destinations(text: str, valid: bool) -> None:
    assert is_destination(text) is valid


@given(st.text(max_size=30))
def test_any_text_may_be_asked_to_be_a_destination(text: str) -> None:
    assert is_destination(text) in (True, False)


def test_an_action_has_exactly_one_kind() -> None:
    assert RUN.only() is RUN.run
    for wrong in (Action(), Action(run=RUN.run, parallel=ParallelAction(actions=(RUN,)))):
        with pytest.raises(ValueError, match="exactly one kind"):
            wrong.only()
    tcp = TCPCheck(port=1)
    assert Check(tcp=tcp).only() is tcp
    with pytest.raises(ValueError, match="exactly one kind"):
        Check().only()


def test_an_update_changes_what_it_names() -> None:
    update = DesiredLRPUpdate(instances=0, annotation="", routes={})
    stored = attrs.evolve(SMALLEST, annotation="old", routes={"a": 1}, memory_mb=7)
    assert update.apply_to(stored) == attrs.evolve(stored, instances=0, annotation="", routes={})


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        (DesiredLRPUpdate(), []),
        (DesiredLRPUpdate(image_username="u", image_password=Secret("p")), []),
        (DesiredLRPUpdate(image_username="", image_password=Secret("")), []),
        (DesiredLRPUpdate(image_username="u"), ["/image_password"]),
        (DesiredLRPUpdate(image_password=Secret("p")), ["/image_username"]),
        (DesiredLRPUpdate(instances=-1, annotation="x" * 10_241), ["/instances", "/annotation"]),
    ],
)
def test_an_update_is_checked_like_a_definition(update: DesiredLRPUpdate, expected: list[str]) -> None:
    assert [error.pointer for error in validate(update)] == expected


@settings(max_examples=50, deadline=None)
@given(strategies.desired_lrp_definitions(), st.integers(0, 100))
def test_an_update_of_a_valid_definition_is_valid(definition: DesiredLRPDefinition, instances: int) -> None:
    changed = DesiredLRPUpdate(instances=instances).apply_to(definition)
    assert changed.instances == instances
    assert validate(changed) == []


@pytest.mark.parametrize(
    ("old", "new", "succeeded"),
    [(("", 5), ("a", 0), True), (("a", 1), ("b", 0), True), (("a", 1), ("a", 2), True), (("a", 1), ("a", 1), False)],
)
def test_modification_tags_are_ordered(old: tuple[str, int], new: tuple[str, int], succeeded: bool) -> None:
    before, after = (ModificationTag(epoch=epoch, index=index) for epoch, index in (old, new))
    assert before.succeeded_by(after) is succeeded
    assert before.epoch == "" or before.succeeded_by(before.next())
