"""What a garden's configuration refuses."""

from __future__ import annotations

from typing import Any

import pytest

from cells.garden.config import GardenConfig

LEAST = {"cell_id": "cell-1", "state_dir": "/state", "image_root": "/images", "host_address": "192.0.2.1"}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("cell_id", "a/b"),
        ("cell_id", ".."),
        ("cell_id", ""),
        ("volumes_store_mb", 255),
        ("volumes_store_mb", -1),
        ("disk_driver", "zfs"),
        ("interface_prefix", "d1"),
        ("interface_prefix", "1d"),
        ("interface_prefix", ""),
        ("interface_prefix", "abcdefghi"),
        ("inodes_max", -1),
        ("cpu_hard_limit_millis", -1),
    ],
)
def test_refused_by_name(setting: str, value: Any) -> None:
    with pytest.raises(ValueError, match=setting):
        GardenConfig(**{**LEAST, setting: value})


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("interface_prefix", "d"),
        ("interface_prefix", "d1n"),
        ("cell_id", "z1_a.b"),
        ("volumes_store_mb", 0),
        ("volumes_store_mb", 256),
        ("disk_driver", "btrfs"),
    ],
)
def test_taken(setting: str, value: Any) -> None:
    assert getattr(GardenConfig(**{**LEAST, setting: value}), setting) == value
