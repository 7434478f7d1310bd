"""The runtime that a cell calls: a copy of its own, that nobody can change, neither in a container nor on the host."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cells.garden import sealed
from cells.garden.garden import Garden
from cells.garden.spec import ProcessSpec
from tests.kernel.conftest import mounts_below
from tests.kernel.containers import SOON_S, call, every_runtime, shell, start

pytestmark = pytest.mark.kernel


@every_runtime
async def test_the_runtime_makes_no_copy_of_itself(garden: Garden) -> None:
    """What waits in the container to become the user's process is what the garden executes, or its wrapper does."""
    await garden.create(call(), shell("a", "true"))
    waiting = os.stat(f"/proc/{garden._box('a').init.pid}/exe")
    wrapped = Path(garden.config.runtime_path).parent / "sealed" / "crun"
    program = wrapped if wrapped.exists() else Path(garden._host.runtime.program)
    assert os.path.samestat(waiting, program.stat())
    assert not [place for place in mounts_below(garden.config.state_dir) if Path(place).name.startswith("runc.")]


async def test_nobody_can_write_it(garden: Garden) -> None:
    path = garden._host.runtime.program
    with open(path, "rb") as program:
        assert fcntl.fcntl(program, fcntl.F_GET_SEALS) == sealed.SEALS
    with open(path, "r+b", buffering=0) as program, pytest.raises(PermissionError):
        program.write(b"x")
    with pytest.raises(PermissionError):
        os.truncate(path, 0)


async def test_a_runtime_that_is_replaced_stays_until_the_next_start(
    new_garden: Callable[..., Any], tmp_path: Path
) -> None:
    found = shutil.which("runc")
    assert found is not None
    program = tmp_path / "runc"
    shutil.copy(found, program)
    garden = await new_garden(runtime_path=str(program))
    program.write_text("#!/bin/sh\nexit 1\n")
    await start(garden, shell("a", "exec sleep 600"))
    assert (await garden.exec(call(), "a", ProcessSpec("/bin/true"), SOON_S)).status == 0


def test_a_script_is_not_copied(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    assert sealed.copy(str(program)) is None
