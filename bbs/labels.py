"""What is told of each instance besides its state: the names under which other apps reach it, and its metrics' tags.

Diego's reps tell it of each instance; here it follows from the LRP as it is now. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import field, frozen

from diego_py.models.desired_lrp import DesiredLRPDefinition
from diego_py.models.fields import JsonValue
from diego_py.models.workload import DynamicMetricTag, MetricTagValue

INTERNAL_ROUTER: Final = "internal-router"
"""Whose routes they are: `[{"hostname": …}]`."""


@frozen(kw_only=True)
class Labels:
    """The labels of an LRP's instances, or of one instance."""

    internal_routes: JsonValue = None
    """As they are in the LRP's `routes`: whatever its client wrote there."""
    metric_tags: Mapping[str, MetricTagValue] = field(factory=dict)

    def hostnames(self) -> list[str]:
        """Each name of an internal route; what is none is left out."""
        routes: Any = self.internal_routes if isinstance(self.internal_routes, list) else ()
        names = (route.get("hostname") for route in routes if isinstance(route, dict))
        return [name for name in names if isinstance(name, str) and name]

    def tags(self, index: int, instance_guid: str) -> dict[str, str]:
        """The tags of one instance."""
        return {name: _said(tag, index, instance_guid) for name, tag in self.metric_tags.items()}


def _said(tag: MetricTagValue, index: int, instance_guid: str) -> str:
    if tag.dynamic is None:
        return tag.static or ""
    return str(index) if tag.dynamic is DynamicMetricTag.INDEX else instance_guid


def labels_of(definition: DesiredLRPDefinition) -> Labels:
    """What an LRP says of its instances."""
    return Labels(internal_routes=definition.routes.get(INTERNAL_ROUTER), metric_tags=definition.metric_tags)
