"""The form that definitions had before layers of images: what the r2 routes tell. Pure; definitions are JSON here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from diego_py.models.image import LayerType

Json = dict[str, Any]
_SOURCE: Final = "source_id"


def lrp_without_layers(definition: Json) -> Json:
    """A desired LRP as r2 tells it. Consumes it."""
    return _without_layers(definition, "setup")


def task_without_layers(definition: Json) -> Json:
    """A task's definition as r2 tells it. Consumes it."""
    return _without_layers(definition, "action")


def with_metrics_guid(definition: Json) -> Json:
    """A desired LRP with the deprecated name of its source, which Diego tells also of who was never sent it."""
    source = definition["metric_tags"].get(_SOURCE) or {}
    return {**definition, "metrics_guid": definition["metrics_guid"] or source.get("static") or ""}


def _without_layers(definition: Json, first: str) -> Json:
    """Shared layers are cached dependencies there; exclusive ones are downloaded by the action `first` before all."""
    layers = definition["image_layers"]
    shared = [_dependency(layer) for layer in layers if layer["layer_type"] == LayerType.SHARED.value]
    exclusive = [layer for layer in layers if layer["layer_type"] == LayerType.EXCLUSIVE.value]
    return {
        **definition,
        "cached_dependencies": [*shared, *definition["cached_dependencies"]],
        first: _downloading(exclusive, definition["legacy_download_user"], definition[first]),
        "image_layers": [],
    }


def _dependency(layer: Json) -> Json:
    return {
        "name": layer["name"],
        "from": layer["url"],
        "to": layer["destination_path"],
        "cache_key": _checksum(layer) or layer["url"],
        **_check(layer),
    }


def _downloading(layers: Sequence[Json], user: str, action: Json | None) -> Json | None:
    """The action, when there is one, behind the downloads of these layers, when there are any."""
    if not layers:
        return action
    downloads = {"parallel": {"actions": [{"download": _download(layer, user)} for layer in layers]}}
    return downloads if action is None else {"serial": {"actions": [downloads, action]}}


def _download(layer: Json, user: str) -> Json:
    return {
        "artifact": layer["name"],
        "from": layer["url"],
        "to": layer["destination_path"],
        "cache_key": _checksum(layer),
        "user": user,
        **_check(layer),
    }


def _check(layer: Json) -> Json:
    return {"checksum_algorithm": _algorithm(layer), "checksum_value": layer["digest_value"]}


def _checksum(layer: Json) -> str:
    return f"{_algorithm(layer)}:{layer['digest_value']}" if layer["digest_value"] else ""


def _algorithm(layer: Json) -> str:
    return (layer["digest_algorithm"] or "").lower()
