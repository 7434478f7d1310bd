"""What a cell says of a host that is less safe than it should be, and AppArmor where the kernel has it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cells.garden.apparmor import MODULE
from cells.garden.spec import ProcessSpec
from diego_py.errors import AppArmorProfileMissing
from tests.kernel.containers import SOON_S, call, every_runtime, runtime_of_version, shell, start, until_printed

pytestmark = pytest.mark.kernel

PROFILE = "diego-kernel-test"
RULES = f"""
profile {PROFILE} flags=(attach_disconnected,mediate_deleted) {{
  file,
  network,
  capability,
  signal,
  ptrace,
  unix,
  deny /srv/** w,
}}
"""


@pytest.mark.parametrize(("said", "warned"), [("runc version 1.3.3", False), ("runc version 1.3.2", True)])
async def test_an_old_runtime_is_a_warning(
    new_garden: Callable[..., Any], tmp_path: Path, said: str, warned: bool
) -> None:
    garden = await new_garden(runtime_path=runtime_of_version(tmp_path, said))
    assert any("runc 1.3.2 is older" in warning for warning in garden.warnings()) is warned
    await start(garden, shell("a", "exit 0"))
    assert (await garden.wait("a")).status == 0


async def test_a_profile_without_apparmor_is_a_warning(new_garden: Callable[..., Any]) -> None:
    if MODULE.exists() and MODULE.read_text().strip() == "Y":
        pytest.skip("this kernel has AppArmor")
    garden = await new_garden(apparmor_profile=PROFILE)
    assert any(f"{PROFILE} is not applied" in warning for warning in garden.warnings())
    await start(garden, shell("a", "exit 0"))
    assert (await garden.wait("a")).status == 0


@pytest.fixture
def profile(tmp_path: Path) -> Iterator[str]:
    if not MODULE.exists() or MODULE.read_text().strip() != "Y":
        pytest.skip("this kernel has no AppArmor; scripts/test-vm runs this test on one that has")
    file = tmp_path / "profile"
    file.write_text(RULES)
    subprocess.run(["apparmor_parser", "--replace", "--skip-cache", str(file)], check=True)
    yield PROFILE
    subprocess.run(["apparmor_parser", "--remove", str(file)], check=True)


@every_runtime
async def test_the_profile_holds_for_the_container_and_for_what_is_executed_in_it(
    new_garden: Callable[..., Any], profile: str
) -> None:
    garden = await new_garden(apparmor_profile=profile)
    script = "cat /proc/self/attr/current; echo x > /srv/x || echo no; echo y > /tmp/y && echo ready; exec sleep 600"
    await start(garden, shell("a", script))
    await until_printed(garden, "a", "ready")
    lines = [line.text async for line in garden.logs("a")]
    assert f"{profile} (enforce)" in lines
    assert "no" in lines
    told = await garden.exec(call(), "a", ProcessSpec("/bin/cat", ("/proc/self/attr/current",)), SOON_S)
    assert told.output == f"{profile} (enforce)\n"


async def test_a_profile_that_is_not_loaded_is_refused_at_start(new_garden: Callable[..., Any], profile: str) -> None:
    with pytest.raises(AppArmorProfileMissing):
        await new_garden(apparmor_profile=profile + "-not")
