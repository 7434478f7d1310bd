"""What a definition has done in its container: setup, action, sidecars, monitor. Pure."""

from __future__ import annotations

from typing import Protocol

from attrs import evolve

from cells.executor.plan import HealthPlan, Workload
from cells.executor.steps import plan
from cells.executor.steps.mounted_files import File, MountedFiles
from cells.executor.steps.parallel import Parallel
from cells.executor.steps.serial import Serial
from cells.executor.steps.step import Step
from cells.garden.spec import BindMount, ContainerSpec, TmpfsMount
from cells.rep.environment import network_env
from diego_py.errors import Outcome, VolumeDriverMissing
from diego_py.models.actions import Action, ChecksumAlgorithm, DownloadAction, RunAction, runs_of
from diego_py.models.checks import CheckDefinition, CommandCheck
from diego_py.models.desired_lrp import DesiredLRPDefinition
from diego_py.models.image import (
    LOCAL_DRIVER,
    CachedDependency,
    ImageLayer,
    LayerType,
    VolumeMode,
    VolumeMount,
    VolumeMountedFile,
)
from diego_py.models.task import TaskDefinition

NEVER_ASKED = HealthPlan(start_timeout_s=0.0)
"""Of a workload that shall end."""
DOWNLOAD_USER = "root"
"""Whose the files of dependencies and shared layers are, unless the definition says it."""
MOUNTED_FILES_DIRECTORY = "/etc/cf-service-bindings"
"""Diego's."""
MOUNTED_FILES_SPARE_BYTES = 64 * 1024
PAGE_BYTES = 4096


class Files(Protocol):
    """What definitions of both kinds say of the files that their containers shall have."""

    @property
    def legacy_download_user(self) -> str: ...
    @property
    def cached_dependencies(self) -> tuple[CachedDependency, ...]: ...
    @property
    def image_layers(self) -> tuple[ImageLayer, ...]: ...
    @property
    def log_source(self) -> str: ...


def own_process(definition: DesiredLRPDefinition | TaskDefinition) -> tuple[RunAction, str] | None:
    """The process that is the container's own, and what marks its lines; None when there are several, or none."""
    beside = isinstance(definition, DesiredLRPDefinition) and definition.sidecars
    return None if beside else plan.own_process(definition.action)


def is_monitored(definition: DesiredLRPDefinition) -> bool:
    """Whether its monitor action says how it is, and no check does."""
    return definition.monitor is not None and not (definition.check_definition or CheckDefinition()).checks


def lingers(definition: DesiredLRPDefinition) -> bool:
    """Whether what its own process leaves behind goes on when that succeeds: it went to the background.

    As in Diego with a check or a monitor. A check that is a command, which Diego does not have, needs the own process.
    """
    checks = [check.only() for check in (definition.check_definition or CheckDefinition()).checks]
    return is_monitored(definition) or (bool(checks) and not any(isinstance(check, CommandCheck) for check in checks))


def with_own_process(spec: ContainerSpec, definition: DesiredLRPDefinition | TaskDefinition) -> ContainerSpec:
    """The container of the definition with its own process; an idle one when the definition has several."""
    found = own_process(definition)
    if found is None:
        return evolve(spec, idle=True)
    run, source = found
    process = plan.process_of(run, source or definition.log_source)
    return evolve(
        spec,
        path=process.path,
        args=process.args,
        own_env=process.env,
        cwd=process.cwd,
        user=process.user,
        limits=evolve(spec.limits, nofile=process.nofile),
        log_source=process.log_source,
        silent=process.silent,
    )


def workload_of(definition: DesiredLRPDefinition, start_timeout_default_s: float) -> Workload:
    """What is done, and how it is kept."""
    told = definition.check_definition or CheckDefinition()
    checks = told.checks
    start_timeout_s = definition.start_timeout_ms / 1000 or start_timeout_default_s
    source, monitor = definition.log_source, definition.monitor if is_monitored(definition) else None
    sidecars = tuple(sidecar.action for sidecar in definition.sidecars)
    single = own_process(definition) is not None
    goes_on = not single and not sidecars and bool(monitor or checks)
    if single:
        action = plan.alone(definition.action, source)
    else:
        action = plan.in_idle(definition.action, sidecars, source, leaves=goes_on)
    return Workload(
        health=HealthPlan(
            checks=checks,
            start_timeout_s=start_timeout_s,
            readiness=told.readiness_checks,
            log_source=told.log_source,
        ),
        setup=_setup(definition, definition.setup),
        action=action,
        monitor=None if monitor is None else plan.beside(monitor, source),
        goes_on=goes_on,
        network_env=network_env,
    )


def task_workload(definition: TaskDefinition) -> Workload:
    """What is done once. It has nothing to be asked whether it is healthy."""
    single = own_process(definition) is not None
    action, source = definition.action, definition.log_source
    return Workload(
        health=NEVER_ASKED,
        setup=_setup(definition, None),
        action=plan.alone(action, source) if single else plan.in_idle(action, (), source),
        network_env=network_env,
    )


def _setup(definition: DesiredLRPDefinition | TaskDefinition, action: Action | None) -> Step | None:
    """Files that the container shall have: those of the definition, then downloads, all at once; then the action."""
    steps: list[Step] = []
    if definition.volume_mounted_files:
        steps.append(_mounted_files(definition))
    if downloads := downloads_of(definition):
        steps.append(Parallel(downloads))
    if action is not None:
        steps.append(plan.beside(action, definition.log_source))
    return Serial(tuple(steps)) if steps else None


def _mounted_files(definition: DesiredLRPDefinition | TaskDefinition) -> MountedFiles:
    """Owned by the user of the first process of the action; root where the image says who that is."""
    users = [run.user for _, run in runs_of(definition.action, "")]
    files = tuple(File(file.path, file.content) for file in definition.volume_mounted_files)
    return MountedFiles(MOUNTED_FILES_DIRECTORY, files, next(iter(users), "") or DOWNLOAD_USER)


def mounts_of(definition: DesiredLRPDefinition | TaskDefinition) -> tuple[BindMount | TmpfsMount, ...]:
    """Volumes, and memory for the files of the definition. Raises VolumeDriverMissing."""
    return (*map(_volume, definition.volume_mounts), *_memory_for(definition.volume_mounted_files))


def _volume(mount: VolumeMount) -> BindMount:
    if mount.driver != LOCAL_DRIVER:
        evidence = {"driver": mount.driver, "drivers": [LOCAL_DRIVER]}
        told = f"mount a volume of driver {mount.driver}"
        raise VolumeDriverMissing(told, outcome=Outcome.NOT_STARTED, evidence=evidence)
    return BindMount(mount.shared.volume_id, mount.container_dir, readonly=mount.mode is VolumeMode.READ_ONLY)


def _memory_for(files: tuple[VolumeMountedFile, ...]) -> tuple[TmpfsMount, ...]:
    if not files:
        return ()
    sizes = [len(file.content.reveal().encode("utf-8", "surrogatepass")) for file in files]
    whole = sum(size + (2 + file.path.count("/")) * PAGE_BYTES for file, size in zip(files, sizes, strict=True))
    return (TmpfsMount(MOUNTED_FILES_DIRECTORY, whole + MOUNTED_FILES_SPARE_BYTES),)


def downloads_of(definition: Files) -> tuple[Step, ...]:
    """Cached dependencies and layers of the image. Each container has its own copy of what is shared."""
    user = definition.legacy_download_user or DOWNLOAD_USER
    actions = [_of_dependency(dependency, user) for dependency in definition.cached_dependencies]
    actions += [_of_layer(layer, user) for layer in definition.image_layers]
    return tuple(plan.download_of(action, action.log_source or definition.log_source) for action in actions)


def _of_dependency(dependency: CachedDependency, user: str) -> DownloadAction:
    return DownloadAction(
        artifact=dependency.name,
        from_=dependency.from_,
        to=dependency.to,
        cache_key=dependency.cache_key or dependency.from_,
        log_source=dependency.log_source,
        user=user,
        checksum_algorithm=dependency.checksum_algorithm,
        checksum_value=dependency.checksum_value,
    )


def _of_layer(layer: ImageLayer, user: str) -> DownloadAction:
    """A shared one is kept under its digest, or its URL; an exclusive one is used once. Diego: image_layer.go."""
    shared = layer.layer_type is LayerType.SHARED
    algorithm = None if layer.digest_algorithm is None else ChecksumAlgorithm.SHA256
    named = layer.url if algorithm is None else f"{algorithm.value}:{layer.digest_value}"
    return DownloadAction(
        artifact=layer.name,
        from_=layer.url,
        to=layer.destination_path,
        cache_key=named if shared else "",
        user=DOWNLOAD_USER if shared else user,
        checksum_algorithm=algorithm,
        checksum_value=layer.digest_value,
    )
