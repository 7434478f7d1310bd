"""What a store finds on its disk when it starts: layers are taken up, whatever else is there is in nobody's way."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from cells.garden.images.layer_files import LayerFiles
from cells.garden.images.unpack import Unpacked

LAYER = "a" * 64
UNPACKED = Unpacked(entries=0, size_bytes=0, disk_bytes=4096, devices_skipped=0, diff_id="sha256:" + "b" * 64)


@pytest.fixture
def files(tmp_path: Path) -> LayerFiles:
    """With one layer."""
    made = LayerFiles(tmp_path / "images")
    assert made.prepare() == []
    made.begin(LAYER)
    made.finish(LAYER, (), UNPACKED)
    return made


def told(files: LayerFiles) -> dict[str, str]:
    """What was written down: names, and why they had to go."""
    lines = map(json.loads, (files.root / "removals.jsonl").read_text().splitlines())
    return {line["layer"]: line["reason"] for line in lines}


def test_strays_of_every_kind_are_removed_and_told(files: LayerFiles, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (files.layers / LAYER).rename(elsewhere)
    (files.layers / LAYER).symlink_to(elsewhere)  # Looks like a layer, and is somebody's link.
    (files.layers / "notes.txt").write_text("x")
    (files.layers / ("c" * 64)).write_text("where a layer is to be")
    os.mkfifo(files.layers / "pipe")
    (files.layers / "directory/deep").mkdir(parents=True)
    (files.layers / "gone").symlink_to(tmp_path / "nowhere")
    assert files.prepare() == []
    assert os.listdir(files.layers) == []
    assert (elsewhere / "layer.json").exists()
    assert told(files) == {
        **dict.fromkeys((LAYER, "notes.txt", "c" * 64, "pipe", "gone"), "no directory, found at start"),
        "directory": "a directory without a whole layer, found at start",
    }
    assert files.prepare() == []
    assert len(told(files)) == 6


def test_what_cannot_be_removed_stays_and_is_told(files: LayerFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    (files.layers / "mounted").mkdir()
    monkeypatch.setattr(shutil, "rmtree", refuse)
    assert [layer.chain_id for layer in files.prepare()] == [LAYER]
    assert (files.layers / "mounted").is_dir()
    assert told(files)["mounted"].endswith("still there: Device or resource busy")


def refuse(path: Path, ignore_errors: bool = False) -> None:
    if path.name == "mounted":
        raise OSError(16, os.strerror(16))
    for inside in path.iterdir():
        inside.unlink()
    path.rmdir()
