"""An image with the probe in it, and a script run each way into a container."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cells.garden.garden import Garden
from tests.kernel.containers import call, make_busybox, start
from tests.kernel.security.probing import EXEC_TIMEOUT_S, PROBED, Ways, inside, process

END = "--end--"


@pytest.fixture(scope="session")
def probed(image_root: Path) -> Path:
    """A rootfs of busybox, `probe`, and `probe-as-root`, which is the same with the setuid bit."""
    image = image_root / PROBED.partition(":")[2]
    make_busybox(image)
    source = Path(__file__).with_name("probe.c")
    warnings = ("-Wall", "-Wextra", "-Werror")
    subprocess.run(["gcc", "-static", "-O1", *warnings, "-o", image / "bin/probe", source], check=True)
    shutil.copy(image / "bin/probe", image / "bin/probe-as-root")
    (image / "bin/probe-as-root").chmod(0o4755)
    (image / "bin/runtime-itself").symlink_to("/proc/self/exe")
    return image


@pytest.fixture
def each_way(garden: Garden, probed: Path) -> Ways:
    async def run(script: str, user: str = "root", **more: Any) -> dict[str, list[str]]:
        await start(garden, inside("ways", f"{script}\necho {END}; exec sleep 600", user=user, **more))
        lines = []
        async for line in garden.logs("ways", follow=True):
            if line.text == END:
                break
            lines.append(line.text)
        second = await garden.exec(call(), "ways", process(script, user), EXEC_TIMEOUT_S)
        async with await garden.open(call(), "ways", process(f"{{ {script}\n}} 2>&1", user)) as session:
            await session.close_input()
            third = (await session.stdout.read()).decode()
        await garden.destroy(call(), "ways")
        return {"main": lines, "exec": second.output.splitlines(), "session": third.splitlines()}

    return run
