"""A cell's settings as they are read from its file, and what garden makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cells.config import CellConfig
from diego_py.service.config import ConfigError, load

LEAST = {"cell_id": "c", "bbs_urls": ["http://bbs"], "state_dir": "/var/lib/diego", "image_root": "/var/lib/images"}


def read(directory: Path, **settings: Any) -> CellConfig:
    path = directory / "cell.json"
    path.write_text(json.dumps({**LEAST, **settings}))
    return load(CellConfig, path)


def test_the_least_that_works(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert config.garden().egress_default == "open"
    assert config.image_schemes == ("docker",)


def test_images(tmp_path: Path) -> None:
    mirrors = {"registry.example": ["mirror.example:5000", "127.0.0.1:5000"]}
    config = read(tmp_path, registry_mirrors=mirrors, insecure_registries=["mirror.example:5000"], image_dirs=["/srv"])
    images = config.garden().images
    assert images.mirrors == {"registry.example": ("mirror.example:5000", "127.0.0.1:5000")}
    assert images.insecure_registries == ("mirror.example:5000",)
    assert config.image_schemes == ("docker", "oci")


@pytest.mark.parametrize(
    "settings",
    [
        {"egress_default": "ajar"},
        {"registry_mirrors": {"Registry.example": []}},
        {"registry_mirrors": {"registry.example": ["http://mirror"]}},
        {"insecure_registries": ["registry.example/path"]},
        {"default_registry": "user@registry.example"},
        {"image_dirs": ["relative"]},
        {"image_dirs": ["/srv/../etc"]},
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        read(tmp_path, **settings).garden()
