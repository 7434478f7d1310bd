from typing import Any

import attrs
import pytest

from diego_py.models.actions import (
    Action,
    DownloadAction,
    EnvironmentVariable,
    ParallelAction,
    ResourceLimits,
    RunAction,
    SerialAction,
    TimeoutAction,
    TryAction,
)
from diego_py.models.checks import Check, CheckDefinition, CommandCheck, HTTPCheck, TCPCheck
from diego_py.models.desired_lrp import DesiredLRPDefinition, Sidecar
from diego_py.models.identifiers import Domain, ProcessGuid
from diego_py.models.image import (
    CachedDependency,
    DigestAlgorithm,
    ImageLayer,
    LayerType,
    MediaType,
)
from diego_py.models.supported import ONLY_DEFAULT, unsupported
from diego_py.models.task import TaskDefinition
from diego_py.models.workload import CertificateProperties, LogRateLimit, MetricTagValue, Network
from diego_py.secret import Secret

VARIABLE = EnvironmentVariable(name="A", value=Secret("b"))
RUN = RunAction(
    path="/x", args=("a",), dir="/", env=(VARIABLE,), user="u", resource_limits=ResourceLimits(nofile=1), log_source="L"
)
ACTION = Action(run=RUN)
CHECKS = (
    Check(tcp=TCPCheck(port=1)),
    Check(http=HTTPCheck(port=1)),
    Check(command=CommandCheck(path="/x", user="u")),
)
LAYER = ImageLayer(url="http://a", destination_path="/", layer_type=LayerType.SHARED, media_type=MediaType.TAR)
DOWNLOAD = Action(download=DownloadAction(from_="http://a/b", to="/", user="u"))
FULL = DesiredLRPDefinition(
    process_guid=ProcessGuid("p"),
    domain=Domain("d"),
    rootfs="preloaded:x",
    instances=3,
    environment_variables=(VARIABLE,),
    action=ACTION,
    start_timeout_ms=1,
    memory_mb=1,
    cpu_weight=1,
    ports=(8080,),
    routes={"r": 1},
    log_source="s",
    log_guid="g",
    annotation="a",
    placement_tags=("t",),
    max_pids=1,
    check_definition=CheckDefinition(checks=CHECKS, readiness_checks=CHECKS, log_source="H"),
    metric_tags={"source_id": MetricTagValue(static="s")},
    log_rate_limit=LogRateLimit(bytes_per_second=9),
    setup=Action(try_=TryAction(action=DOWNLOAD)),
    monitor=Action(timeout=TimeoutAction(action=ACTION, timeout_ms=1)),
    cached_dependencies=(CachedDependency(from_="http://a/b", to="/"),),
    legacy_download_user="u",
    image_layers=(LAYER,),
    sidecars=(Sidecar(action=Action(parallel=ParallelAction(actions=(ACTION, ACTION)))),),
)
NPROC = Action(run=attrs.evolve(RUN, resource_limits=ResourceLimits(nproc=1)))
TASK = TaskDefinition(rootfs="preloaded:x", action=ACTION, memory_mb=1)

USED: dict[str, Any] = {
    "metrics_guid": "m",
    "trusted_system_certificates_path": "/c",
    "network": Network(),
    "certificate_properties": CertificateProperties(),
}
LRP_FIELDS = {field.name for field in attrs.fields(DesiredLRPDefinition)}
TASK_FIELDS = {field.name for field in attrs.fields(TaskDefinition)}


def test_what_is_executed_is_not_refused() -> None:
    assert unsupported(FULL) == []
    assert unsupported(TASK) == []


def test_the_table_names_fields_that_exist_and_every_row_is_tested() -> None:
    assert set(ONLY_DEFAULT) == set(USED)
    assert set(ONLY_DEFAULT) <= LRP_FIELDS | TASK_FIELDS


@pytest.mark.parametrize("name", ONLY_DEFAULT)
def test_each_field_of_the_table_is_refused_by_name(name: str) -> None:
    for definition, names in ((FULL, LRP_FIELDS), (TASK, TASK_FIELDS)):
        if name not in names:
            continue
        (error,) = unsupported(attrs.evolve(definition, **{name: USED[name]}))
        assert (error.pointer, error.code) == (f"/{name}", "unsupported_field")
        assert ONLY_DEFAULT[name] in error.detail


@pytest.mark.parametrize(
    ("fields", "pointers"),
    [
        ({"rootfs": "https://a/b"}, ["/rootfs"]),
        ({"rootfs": "preloaded+layer:x?layer=y"}, ["/rootfs"]),
        ({"action": NPROC}, ["/action/run/resource_limits/nproc"]),
        (
            {"image_layers": (attrs.evolve(LAYER, digest_algorithm=DigestAlgorithm.SHA512, digest_value="0"),)},
            ["/image_layers/0/digest_algorithm"],
        ),
        (
            {"sidecars": (Sidecar(action=Action(serial=SerialAction(actions=(ACTION, NPROC)))),)},
            ["/sidecars/0/action/serial/actions/1/run/resource_limits/nproc"],
        ),
        ({"monitor": NPROC, "metrics_guid": "m"}, ["/metrics_guid", "/monitor/run/resource_limits/nproc"]),
        ({"rootfs": "zip:x", "network": Network()}, ["/network", "/rootfs"]),
    ],
)
def test_each_other_rule_is_refused_by_pointer(fields: dict[str, Any], pointers: list[str]) -> None:
    assert [error.pointer for error in unsupported(attrs.evolve(FULL, **fields))] == pointers
