"""diego-py: a container scheduler whose answer is the outcome. Names load on first use, so that start-up is cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diego_py.clients.bbs import BbsClient
    from diego_py.clients.bbs_sync import SyncBbs, connect
    from diego_py.errors import DiegoError
    from diego_py.models.actual_lrp import ActualLRP
    from diego_py.models.desired_lrp import DesiredLRP, DesiredLRPDefinition, DesiredLRPUpdate

__version__ = "0.1.0"

__all__ = [
    "ActualLRP",
    "BbsClient",
    "DesiredLRP",
    "DesiredLRPDefinition",
    "DesiredLRPUpdate",
    "DiegoError",
    "SyncBbs",
    "__version__",
    "connect",
]

_HOMES = {
    "ActualLRP": "diego_py.models.actual_lrp",
    "BbsClient": "diego_py.clients.bbs",
    "DesiredLRP": "diego_py.models.desired_lrp",
    "DesiredLRPDefinition": "diego_py.models.desired_lrp",
    "DesiredLRPUpdate": "diego_py.models.desired_lrp",
    "DiegoError": "diego_py.errors",
    "SyncBbs": "diego_py.clients.bbs_sync",
    "connect": "diego_py.clients.bbs_sync",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'diego_py' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
