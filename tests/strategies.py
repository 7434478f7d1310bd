"""Hypothesis strategies of valid nouns, for every property test. They stay within limits and the nouns' own rules."""

import string
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from diego_py.models.actions import (
    Action,
    ChecksumAlgorithm,
    CodependentAction,
    DownloadAction,
    EmitProgressAction,
    EnvironmentVariable,
    ParallelAction,
    ResourceLimits,
    RunAction,
    SerialAction,
    TimeoutAction,
    TryAction,
    UploadAction,
)
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, NetInfo, PortMapping, PreferredAddress, Presence
from diego_py.models.cell import CellCapacity, CellPresence, RootfsProvider
from diego_py.models.checks import Check, CheckDefinition, CommandCheck, HTTPCheck, TCPCheck
from diego_py.models.desired_lrp import DesiredLRP, DesiredLRPDefinition, Sidecar, UpdateStrategy
from diego_py.models.egress import EgressProtocol, ICMPInfo, PortRange, SecurityGroupRule
from diego_py.models.identifiers import CellId, Domain, InstanceGuid, ProcessGuid, TaskGuid
from diego_py.models.image import (
    CachedDependency,
    DigestAlgorithm,
    ImageLayer,
    LayerType,
    MediaType,
    SharedDevice,
    VolumeMode,
    VolumeMount,
    VolumeMountedFile,
)
from diego_py.models.task import Task, TaskDefinition, TaskState
from diego_py.models.workload import (
    CertificateProperties,
    DynamicMetricTag,
    LogRateLimit,
    MetricTagValue,
    ModificationTag,
    Network,
)
from diego_py.secret import REDACTED, Secret

_GUID_CHARACTERS = string.ascii_letters + string.digits + "_-"
_CHARACTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])

guid_texts = st.text(_GUID_CHARACTERS, min_size=1, max_size=40)
process_guids = guid_texts.map(ProcessGuid)
instance_guids = guid_texts.map(InstanceGuid)
task_guids = guid_texts.map(TaskGuid)
names = st.text(_CHARACTERS, min_size=1, max_size=20)
texts = st.text(_CHARACTERS, max_size=20)
domains = names.map(Domain)
cell_ids = names.map(CellId)
ports = st.integers(1, 65_535)
amounts = st.integers(0, 2**31 - 1)
durations_ms = st.integers(0, 7 * 24 * 3600 * 1000)
secrets = texts.filter(lambda text: text != REDACTED).map(Secret)
moments = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9998, 1, 1), timezones=st.just(UTC))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(texts, json_values, max_size=3)

environment_variables = st.builds(
    EnvironmentVariable,
    name=st.text(st.characters(exclude_characters="\0=", exclude_categories=["Cs"]), min_size=1, max_size=20),
    value=secrets,
)


def tuples_of(items: st.SearchStrategy[Any], *, min_size: int = 0, max_size: int = 3, unique_by: Any = None) -> Any:
    """Tuples of a few of `items`."""
    return st.lists(items, min_size=min_size, max_size=max_size, unique_by=unique_by).map(tuple)


environments = tuples_of(environment_variables, unique_by=lambda variable: variable.name)
run_actions = st.builds(
    RunAction,
    path=names,
    args=tuples_of(texts),
    dir=texts,
    env=environments,
    resource_limits=st.none() | st.builds(ResourceLimits, nofile=st.none() | amounts, nproc=st.none() | amounts),
    user=names,
    log_source=texts,
    suppress_log_output=st.booleans(),
)
checksums = st.just((None, "")) | st.tuples(st.sampled_from(ChecksumAlgorithm), names)
urls = st.sampled_from(["http://files.test/a.tgz", "https://files.test/b?c=d"])


@st.composite
def download_actions(draw: st.DrawFn) -> DownloadAction:
    """A download whose checksum fields go together."""
    algorithm, value = draw(checksums)
    return DownloadAction(
        artifact=draw(texts),
        from_=draw(urls),
        to=draw(names),
        cache_key=draw(texts),
        log_source=draw(texts),
        user=draw(names),
        checksum_algorithm=algorithm,
        checksum_value=value,
    )


def _wrappers(inner: st.SearchStrategy[Action]) -> st.SearchStrategy[Action]:
    several = tuples_of(inner, min_size=1)
    return st.one_of(
        st.builds(TimeoutAction, action=inner, timeout_ms=st.integers(1, 1000)).map(lambda kind: Action(timeout=kind)),
        st.builds(EmitProgressAction, action=inner, start_message=texts).map(lambda kind: Action(emit_progress=kind)),
        st.builds(TryAction, action=inner, log_source=texts).map(lambda kind: Action(try_=kind)),
        st.builds(ParallelAction, actions=several).map(lambda kind: Action(parallel=kind)),
        st.builds(SerialAction, actions=several).map(lambda kind: Action(serial=kind)),
        st.builds(CodependentAction, actions=several).map(lambda kind: Action(codependent=kind)),
    )


actions: st.SearchStrategy[Action] = st.recursive(
    st.one_of(
        run_actions.map(lambda kind: Action(run=kind)),
        download_actions().map(lambda kind: Action(download=kind)),
        st.builds(UploadAction, from_=names, to=urls, user=names).map(lambda kind: Action(upload=kind)),
    ),
    _wrappers,
    max_leaves=4,
)

checks = st.one_of(
    st.builds(TCPCheck, port=ports, connect_timeout_ms=durations_ms, interval_ms=durations_ms).map(
        lambda kind: Check(tcp=kind)
    ),
    st.builds(HTTPCheck, port=ports, path=texts, request_timeout_ms=durations_ms).map(lambda kind: Check(http=kind)),
    st.builds(CommandCheck, path=names, args=tuples_of(texts), user=names, timeout_ms=durations_ms).map(
        lambda kind: Check(command=kind)
    ),
)
check_definitions = st.builds(
    CheckDefinition, checks=tuples_of(checks), readiness_checks=tuples_of(checks), log_source=texts
)

destinations = st.sampled_from(["10.0.0.1", "10.0.0.0/8", "10.0.0.1-10.0.0.9", "fd00::/8", "1.1.1.1,2.2.2.2"])
_port_protocols = st.sampled_from([EgressProtocol.TCP, EgressProtocol.UDP])
_icmp_protocols = st.sampled_from([EgressProtocol.ICMP, EgressProtocol.ICMPV6])
_destination_tuples = tuples_of(destinations, min_size=1)
egress_rules = st.one_of(
    st.builds(
        SecurityGroupRule,
        protocol=_port_protocols,
        destinations=_destination_tuples,
        ports=tuples_of(ports, min_size=1),
    ),
    st.builds(
        SecurityGroupRule,
        protocol=_port_protocols,
        destinations=_destination_tuples,
        port_range=st.tuples(ports, ports).map(lambda pair: PortRange(start=min(pair), end=max(pair))),
        log=st.booleans(),
    ),
    st.builds(
        SecurityGroupRule,
        protocol=_icmp_protocols,
        destinations=_destination_tuples,
        icmp_info=st.builds(ICMPInfo, type=st.integers(-1, 255), code=st.integers(-1, 255)),
    ),
    st.builds(SecurityGroupRule, protocol=st.just(EgressProtocol.ALL), destinations=_destination_tuples),
)

image_layers = st.builds(
    ImageLayer,
    name=texts,
    url=urls,
    destination_path=names,
    layer_type=st.sampled_from(LayerType),
    media_type=st.sampled_from(MediaType),
    digest_algorithm=st.sampled_from(DigestAlgorithm),
    digest_value=names,
)
volume_mounts = st.builds(
    VolumeMount,
    driver=names,
    container_dir=names,
    mode=st.sampled_from(VolumeMode),
    shared=st.builds(SharedDevice, volume_id=names, mount_config=json_objects),
)
mounted_files = st.builds(VolumeMountedFile, path=guid_texts, content=secrets)
metric_tags = st.dictionaries(
    names,
    st.builds(MetricTagValue, static=texts) | st.builds(MetricTagValue, dynamic=st.sampled_from(DynamicMetricTag)),
    max_size=3,
)
modification_tags = st.builds(ModificationTag, epoch=guid_texts, index=st.integers(0, 2**32 - 1))
rootfs_urls = st.sampled_from(["preloaded:cflinuxfs4", "docker://registry.test/app#v1", "preloaded+layer:x?layer=y"])
image_credentials = st.just(("", Secret(""))) | st.tuples(names, secrets.filter(bool))


def _draw_workload(draw: st.DrawFn) -> dict[str, Any]:
    """The fields of any workload; one of an image may leave its process to that."""
    fields = {name: draw(values) for name, values in _workload_fields().items()}
    if fields["rootfs"].startswith("docker:") and draw(st.booleans()):
        fields["action"] = draw(st.sampled_from([Action(run=RunAction()), Action(run=RunAction(args=("x",)))]))
    return fields


def _workload_fields() -> dict[str, st.SearchStrategy[Any]]:
    return {
        "rootfs": rootfs_urls,
        "environment_variables": environments,
        "action": actions,
        "disk_mb": amounts,
        "memory_mb": amounts,
        "cpu_weight": st.integers(0, 10_000),
        "privileged": st.booleans(),
        "log_source": texts,
        "log_guid": texts,
        "annotation": texts,
        "egress_rules": tuples_of(egress_rules, max_size=2),
        "cached_dependencies": tuples_of(st.builds(CachedDependency, from_=urls, to=names, name=texts), max_size=2),
        "legacy_download_user": names,
        "trusted_system_certificates_path": texts,
        "volume_mounts": tuples_of(volume_mounts, max_size=2),
        "network": st.none() | st.builds(Network, properties=st.dictionaries(names, texts, max_size=2)),
        "placement_tags": tuples_of(names, unique_by=lambda tag: tag),
        "max_pids": amounts,
        "certificate_properties": st.none() | st.builds(CertificateProperties, organizational_unit=tuples_of(texts)),
        "image_layers": tuples_of(image_layers, max_size=2),
        "metric_tags": metric_tags,
        "log_rate_limit": st.none() | st.builds(LogRateLimit, bytes_per_second=st.integers(-1, 2**63 - 1)),
        "volume_mounted_files": tuples_of(mounted_files, unique_by=lambda file: file.path),
    }


@st.composite
def desired_lrp_definitions(draw: st.DrawFn) -> DesiredLRPDefinition:
    """Any valid definition; `unsupported` may still refuse it."""
    username, password = draw(image_credentials)
    fields = _draw_workload(draw)
    return DesiredLRPDefinition(
        process_guid=draw(process_guids),
        domain=draw(domains),
        instances=draw(st.integers(0, 100)),
        setup=draw(st.none() | actions),
        monitor=draw(st.none() | actions),
        start_timeout_ms=draw(durations_ms),
        ports=draw(tuples_of(ports, unique_by=lambda port: port)),
        routes=draw(json_objects),
        image_username=username,
        image_password=password,
        check_definition=draw(st.none() | check_definitions),
        sidecars=draw(tuples_of(st.builds(Sidecar, action=actions, disk_mb=amounts, memory_mb=amounts), max_size=2)),
        update_strategy=draw(st.sampled_from(UpdateStrategy)),
        **fields,
    )


@st.composite
def task_definitions(draw: st.DrawFn) -> TaskDefinition:
    """Any valid definition; `unsupported` may still refuse it."""
    username, password = draw(image_credentials)
    fields = _draw_workload(draw)
    return TaskDefinition(
        result_file=draw(texts),
        completion_callback_url=draw(st.sampled_from(["", "http://client.test/done"])),
        image_username=username,
        image_password=password,
        **fields,
    )


desired_lrps = st.builds(
    DesiredLRP,
    definition=desired_lrp_definitions(),
    modification_tag=modification_tags,
    created_at=moments,
    updated_at=moments,
)
tasks = st.builds(
    Task,
    task_guid=task_guids,
    domain=domains,
    definition=task_definitions(),
    state=st.sampled_from(TaskState),
    created_at=moments,
    updated_at=moments,
    first_completed_at=st.none() | moments,
    cell_id=st.none() | cell_ids,
    result=texts,
    failed=st.booleans(),
    failure_reason=st.none() | texts,
    failure=st.none() | json_objects,
    rejection_count=amounts,
    rejection_reason=st.none() | texts,
)
net_infos = st.builds(
    NetInfo,
    address=texts,
    ports=tuples_of(st.builds(PortMapping, container_port=ports, host_port=ports)),
    instance_address=texts,
    preferred_address=st.sampled_from(PreferredAddress),
)


@st.composite
def actual_lrps(draw: st.DrawFn) -> ActualLRP:
    """An instance whose fields agree with its state."""
    state = draw(st.sampled_from(ActualLRPState))
    placed = state in (ActualLRPState.CLAIMED, ActualLRPState.RUNNING)
    unclaimed = state is ActualLRPState.UNCLAIMED
    return ActualLRP(
        process_guid=draw(process_guids),
        index=draw(st.integers(0, 1000)),
        domain=draw(domains),
        state=state,
        presence=Presence.ORDINARY if unclaimed else draw(st.sampled_from(Presence)),
        instance_guid=draw(instance_guids) if placed else None,
        cell_id=draw(cell_ids) if placed else None,
        net_info=draw(net_infos) if state is ActualLRPState.RUNNING else None,
        since=draw(moments),
        crash_count=draw(st.integers(0, 300)),
        crash_reason=draw(st.none() | texts),
        placement_error=draw(st.none() | texts) if unclaimed else None,
        failure=draw(st.none() | json_objects),
        attempts=draw(st.integers(0, 100)),
        next_attempt_at=draw(st.none() | moments),
        routable=draw(st.booleans()),
        availability_zone=draw(texts),
        modification_tag=draw(modification_tags),
    )


cell_presences = st.builds(
    CellPresence,
    cell_id=cell_ids,
    url=st.sampled_from(["http://10.0.0.1:1800", "https://cell.test:1801"]),
    zone=texts,
    address=texts,
    capacity=st.builds(CellCapacity, memory_mb=st.integers(1, 2**20), disk_mb=amounts, containers=st.integers(1, 1000)),
    rootfs_provider_list=tuples_of(st.builds(RootfsProvider, name=names, properties=tuples_of(names))),
    images=tuples_of(names, unique_by=lambda image: image),
    placement_tags=tuples_of(names, unique_by=lambda tag: tag),
    optional_placement_tags=tuples_of(names, unique_by=lambda tag: tag),
    privileged=st.booleans(),
    draining=st.booleans(),
    boot_id=guid_texts,
)
