"""What the configuration wants, met with what the host has."""

from __future__ import annotations

from pathlib import Path

import pytest

from cells.garden.apparmor import choose
from diego_py.errors import AppArmorProfileMissing


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "enabled").write_text("Y\n")
    (tmp_path / "profiles").write_text("one (enforce)\nwith (odd) name (complain)\n")
    return tmp_path / "enabled", tmp_path / "profiles"


@pytest.mark.parametrize("name", ["one", "with (odd) name"])
def test_a_loaded_profile_is_applied(files: tuple[Path, Path], name: str) -> None:
    assert choose(name, *files).profile == name
    assert choose(name, *files).warning is None


def test_no_wish_is_no_warning(files: tuple[Path, Path], tmp_path: Path) -> None:
    assert (choose("", *files).profile, choose("", *files).warning) == (None, None)
    assert choose("", tmp_path / "none", tmp_path / "none").warning is None


@pytest.mark.parametrize("name", ["two", "one (enforce)", "on", "with (odd)"])
def test_a_profile_that_is_not_loaded_is_refused(files: tuple[Path, Path], name: str) -> None:
    with pytest.raises(AppArmorProfileMissing):
        choose(name, *files)


@pytest.mark.parametrize("module", ["N\n", None])
def test_a_host_without_apparmor_is_a_warning(tmp_path: Path, module: str | None) -> None:
    if module is not None:
        (tmp_path / "enabled").write_text(module)
    chosen = choose("one", tmp_path / "enabled", tmp_path / "profiles")
    assert chosen.profile is None
    assert "one is not applied" in (chosen.warning or "")
