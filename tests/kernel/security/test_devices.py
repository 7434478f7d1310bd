"""Device nodes: the default ones, the host's by bind, none made, none changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.kernel.containers import SOON_S, call, every_runtime, start, until_printed
from tests.kernel.security.probing import Ways, inside, process, table

pytestmark = pytest.mark.kernel

DEFAULT = {"full", "null", "random", "tty", "urandom", "zero"}
OTHER = {"core", "fd", "mqueue", "ptmx", "pts", "shm", "stderr", "stdin", "stdout", "console"}


async def test_devices_are_the_default_ones(each_way: Ways) -> None:
    script = "ls /dev; echo; find /dev /tmp -type b -o -type c | grep -v ^/dev/pts/ | sed s,.*/,, | sort"
    for lines in (await each_way(script)).values():
        gap = lines.index("")
        assert set(lines[:gap]) <= DEFAULT | OTHER
        assert set(lines[gap + 1 :]) == DEFAULT


@pytest.mark.parametrize("user", ["root", "vcap"])
async def test_no_device_is_made(each_way: Ways, user: str) -> None:
    for lines in (await each_way("cd /tmp; probe nodes; rm /tmp/fifo", user)).values():
        assert table(lines) == dict.fromkeys(("block device", "memory device", "null device"), "EPERM") | {"fifo": "ok"}


@every_runtime
async def test_host_keeps_its_null_device(new_garden: Callable[..., Any], probed: object) -> None:
    """A runtime gives the standard streams to the container's root, and one of them may be the host's /dev/null."""
    garden = await new_garden()
    change = "chmod 666 /dev/null /proc/self/fd/0 2>&1; chown 0:0 /dev/null 2>&1; stat -c %u:%g /dev/null"
    await start(garden, inside("a", f"{change}; exec sleep 600"))
    await until_printed(garden, "a", "65534:65534")
    result = await garden.exec(call(), "a", process(change), SOON_S)
    assert result.output.splitlines()[-1] == "65534:65534"
    assert "chown: /dev/null: Operation not permitted" in result.output
    found = os.stat(os.devnull)
    assert not garden.config.id_base <= found.st_uid < garden.config.id_base + garden.config.id_slots * 65_536
    assert found.st_mode & 0o777 == 0o666
