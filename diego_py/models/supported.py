"""What this release does not execute yet. Such a field is refused by name: ignoring it would make a 2xx a lie.

A field that becomes supported loses its row here, and nothing else changes.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import attrs

from diego_py.image_reference import IMAGE_SCHEMES
from diego_py.models.actions import Action, RunAction, runs_of
from diego_py.models.desired_lrp import DesiredLRPDefinition, DesiredLRPUpdate
from diego_py.models.fields import UNSUPPORTED_FIELD, FieldError
from diego_py.models.image import DigestAlgorithm
from diego_py.models.task import TaskDefinition

Definition: TypeAlias = DesiredLRPDefinition | TaskDefinition

ROOTFS_SCHEMES: Final = frozenset({"preloaded", *IMAGE_SCHEMES})
ONLY_DEFAULT: Final[Mapping[str, str]] = {
    "metrics_guid": 'use `metric_tags["source_id"]`',
    "trusted_system_certificates_path": "put the certificates into the rootfs",
    "network": "leave it out",
    "certificate_properties": "leave it out; instances get no identity certificate yet",
}
"""Fields of either definition that must have their default value, and what to do instead."""

Rule: TypeAlias = tuple[str, Callable[[Any], bool], str]
"""A JSON pointer, whether the definition uses what is not supported there, and what to do instead."""

RULES: Final[tuple[Rule, ...]] = (
    ("/rootfs", lambda definition: _scheme(definition) not in ROOTFS_SCHEMES, "use `preloaded:`, `docker:` or `oci:`"),
)


def unsupported(definition: Definition) -> list[FieldError]:
    """Every field that is set to something this release does not execute; empty if all is executed."""
    runs = [found for at, action in _actions(definition) for found in runs_of(action, at)]
    refused = [error for at, run in runs for error in _run(at, run)]
    return [*_fields(definition), *_rules(definition), *_layers(definition), *refused]


def unsupported_change(update: DesiredLRPUpdate) -> list[FieldError]:
    """The same for a change: what it sets would make a definition that no cell executes."""
    return list(_fields(update))


def _fields(definition: Definition | DesiredLRPUpdate) -> Iterator[FieldError]:
    for attribute in attrs.fields(type(definition)):
        instead = ONLY_DEFAULT.get(attribute.name)
        if instead is not None and getattr(definition, attribute.name) != attribute.default:
            yield _refuse(f"/{attribute.name}", instead)


def _rules(definition: Definition) -> Iterator[FieldError]:
    for pointer, uses, instead in RULES:
        if uses(definition):
            yield _refuse(pointer, instead)


def _layers(definition: Definition) -> Iterator[FieldError]:
    for position, layer in enumerate(definition.image_layers):
        if layer.digest_algorithm is DigestAlgorithm.SHA512:
            yield _refuse(f"/image_layers/{position}/digest_algorithm", "use SHA256")


def _actions(definition: Definition) -> Iterator[tuple[str, Action]]:
    """Every tree of actions, and where it is."""
    if isinstance(definition, DesiredLRPDefinition) and definition.setup is not None:
        yield "/setup", definition.setup
    yield "/action", definition.action
    if isinstance(definition, DesiredLRPDefinition):
        if definition.monitor is not None:
            yield "/monitor", definition.monitor
        for position, sidecar in enumerate(definition.sidecars):
            yield f"/sidecars/{position}/action", sidecar.action


def _run(at: str, run: RunAction) -> Iterator[FieldError]:
    if run.resource_limits is not None and run.resource_limits.nproc is not None:
        yield _refuse(f"{at}/resource_limits/nproc", "use `max_pids`")


def _refuse(pointer: str, instead: str) -> FieldError:
    return FieldError(pointer, UNSUPPORTED_FIELD, f"is not supported by this release: {instead}")


def _scheme(definition: Definition) -> str:
    return definition.rootfs.partition(":")[0]
