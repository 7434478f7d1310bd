"""Real containers on this kernel: an image, gardens of their own, and a look at the host before and after each test."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cells.garden import children
from cells.garden.config import GardenConfig
from cells.garden.garden import Garden
from diego_py.service.clock import SystemClock
from tests.kernel.containers import call, make_busybox

HOST_LINK = "kerntest0"
HOST_ADDRESS = "198.18.7.1"
"""From the range for benchmarks: an address of the host that no network has."""


@pytest.fixture(scope="session", autouse=True)
def subreaper() -> None:
    children.become_subreaper()


@pytest.fixture(scope="session")
def host_address() -> Iterator[str]:
    """An address of the host to publish ports on, on an interface of its own."""
    subprocess.run(["ip", "link", "add", HOST_LINK, "type", "veth", "peer", HOST_LINK + "p"], check=True)
    subprocess.run(["ip", "address", "add", f"{HOST_ADDRESS}/32", "dev", HOST_LINK], check=True)
    subprocess.run(["ip", "link", "set", HOST_LINK, "up"], check=True)
    yield HOST_ADDRESS
    subprocess.run(["ip", "link", "del", HOST_LINK], check=True)


@pytest.fixture(scope="session")
def image_root() -> Iterator[Path]:
    """Images: `busybox`, a whole small one, and `minimal`, which has a shell and nothing else."""
    root = Path(tempfile.mkdtemp(prefix="kernel-images-"))
    root.chmod(0o711)
    make_busybox(root / "busybox")
    (root / "minimal/bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "minimal/bin/busybox")
    (root / "minimal/bin/sh").symlink_to("busybox")
    (root / "odd-dev").mkdir()
    (root / "odd-dev/dev").symlink_to("/etc")
    yield root
    shutil.rmtree(root)


@pytest.fixture
def new_config(image_root: Path, host_address: str) -> Iterator[Callable[..., GardenConfig]]:
    """Makes configurations that share nothing; what they left behind is removed in the end."""
    made: list[GardenConfig] = []

    def make(**changes: Any) -> GardenConfig:
        number = len(made)
        state = Path(tempfile.mkdtemp(prefix="kernel-garden-"))
        state.chmod(0o711)
        values: dict[str, Any] = {
            "cell_id": f"cell-{number}",
            "state_dir": str(state),
            "image_root": str(image_root),
            "host_address": host_address,
            "network": f"10.233.{number}.0/24",
            "port_first": 62_000 + 100 * number,
            "port_count": 100,
            "id_base": 100_000_000 + number * 10_000_000,
            "id_slots": 16,
            "cgroup_parent": f"/kernel-test-{number}",
            "interface_prefix": f"kt{number}n",
            "nft_table": f"kernel_test_{number}",
            "log_bytes_max": 1 << 20,
        }
        made.append(GardenConfig(**{**values, **changes}))
        return made[-1]

    yield make
    for config in made:
        subprocess.run(["nft", "delete", "table", "inet", config.nft_table], capture_output=True)
        for tree in Path("/sys/fs/cgroup").iterdir():
            parent = Path(f"{tree}{config.cgroup_parent}")
            if parent.is_dir():
                parent.rmdir()
        shutil.rmtree(config.state_dir)


@pytest.fixture
def host_sweep(image_root: Path, host_address: str) -> Iterator[None]:
    """Fails the test, also one that failed already, when something is left on the host."""
    before = inventory()
    yield
    after = inventory()
    left = {kind: sorted(after[kind] - before[kind]) for kind in after if after[kind] - before[kind]}
    assert not left, f"left on the host: {left}"


def inventory() -> dict[str, set[str]]:
    """What a container may leave on a host, by kind."""

    def lines(*argv: str) -> set[str]:
        return set(subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines())

    return {
        "mounts": {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()},
        "links": {entry.name for entry in os.scandir("/sys/class/net")},
        "namespaces": lines("lsns", "--noheadings", "--output", "NS,TYPE"),
        "tables": lines("nft", "list", "tables"),
        "loops": lines("losetup", "--list", "--noheadings", "--output", "NAME"),
        "cgroups": {str(path) for tree in Path("/sys/fs/cgroup").iterdir() for path in tree.glob("kernel-test-*")}
        | {str(path) for tree in Path("/sys/fs/cgroup").iterdir() for path in tree.glob("kernel-test-*/*/")},
        "directories": {str(path) for path in Path(tempfile.gettempdir()).glob("kernel-garden-*")},
        "monitors": {line for line in lines("ps", "-eo", "pid,comm") if "conmon" in line},
    }


@pytest.fixture
async def new_garden(
    host_sweep: None, new_config: Callable[..., GardenConfig]
) -> AsyncIterator[Callable[..., Any]]:
    """Makes started gardens; all their containers are destroyed in the end, and the test fails if that fails."""
    made: list[Garden] = []

    async def make(config: GardenConfig | None = None, **changes: Any) -> Garden:
        garden = Garden(config or new_config(**changes), SystemClock())
        await garden.start()
        made.append(garden)
        return garden

    yield make
    for garden in made:
        for container in garden.containers():
            await garden.destroy(call(), container.handle)
        await garden.close()


@pytest.fixture
async def garden(new_garden: Callable[..., Any]) -> Garden:
    made: Garden = await new_garden()
    return made
