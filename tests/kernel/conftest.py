"""Real containers on this kernel: an image, gardens of their own, and a look at the host before and after each test."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cells.garden import children, demolition, furnishing, session
from cells.garden.config import GardenConfig, ImageSettings
from cells.garden.garden import Garden
from cells.garden.network import firewall
from cells.garden.network.events import Tell, unheard
from cells.garden.processes import stat
from cells.garden.sandboxes import maker
from diego_py.service.clock import SystemClock
from scripts import crun_on_hybrid
from tests.kernel.containers import call, cgroup_trees, make_busybox
from tests.kernel.outside import Outside, machine
from tests.kernel.registry import ALLOWED
from tests.kernel.slot import (
    CGROUP_PREFIX,
    HOST_ADDRESS,
    HOST_LINK,
    ID_BASE,
    ID_END,
    LINK_PREFIX,
    NETWORK_PREFIX,
    OUTSIDE_LINK,
    PORT_FIRST,
    STATE_PREFIX,
    TABLE_PREFIX,
)
from tests.slowness import patient

SETTLED_S = patient(15.0)
SETTLING_LOOK_S = 0.05


@pytest.fixture(scope="session", autouse=True)
def subreaper() -> None:
    children.become_subreaper()


@pytest.fixture(scope="session", autouse=True)
def patience() -> Iterator[None]:
    """The limits that no configuration sets, for a slow machine."""
    limits = {demolition: "KILL_TIMEOUT_S", firewall: "TIMEOUT_S", maker: "TIMEOUT_S", session: "KILL_TIMEOUT_S"}
    limits |= {furnishing: "UNDO_S"}
    with pytest.MonkeyPatch.context() as patch:
        for module, name in limits.items():
            patch.setattr(module, name, patient(getattr(module, name)))
        yield


@pytest.fixture(scope="session")
def host_address() -> Iterator[str]:
    """An address of the host to publish ports on, on an interface of its own."""
    # Left by a run of this slot that was killed.
    subprocess.run(["ip", "link", "del", HOST_LINK], capture_output=True)
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
def runtime_path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The OCI runtime: runc, but for tests marked `every_runtime`, which run once with each that is installed."""
    name: str = getattr(request, "param", "runc")
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    if name == "crun" and crun_on_hybrid.UNIFIED.exists():
        return crun_on_hybrid.write(tmp_path)
    return path if name != "runc" else name


@pytest.fixture
def new_config(image_root: Path, host_address: str, runtime_path: str) -> Iterator[Callable[..., GardenConfig]]:
    """Makes configurations that share nothing; what they left behind is removed in the end."""
    made: list[GardenConfig] = []

    def make(**changes: Any) -> GardenConfig:
        number = len(made)
        state = changes.get("state_dir") or tempfile.mkdtemp(prefix=STATE_PREFIX)
        if "state_dir" not in changes:
            Path(state).chmod(0o711)
        values: dict[str, Any] = {
            "cell_id": f"cell-{number}",
            "state_dir": state,
            "image_root": str(image_root),
            "host_address": host_address,
            "network": f"{NETWORK_PREFIX}.{number}.0/24",
            "port_first": PORT_FIRST + 100 * number,
            "port_count": 100,
            "id_base": ID_BASE + number * 10_000_000,
            "id_slots": 16,
            "sandboxes_ready": 4,
            "cgroup_parent": f"/{CGROUP_PREFIX}{number}",
            "interface_prefix": f"{LINK_PREFIX}{number}n",
            "nft_table": f"{TABLE_PREFIX}{number}",
            "log_bytes_max": 1 << 20,
            "runtime_path": runtime_path,
            "runtime_timeout_s": patient(30.0),
            "images": ImageSettings(allowed=ALLOWED),
        }
        made.append(GardenConfig(**{**values, **changes}))
        return made[-1]

    yield make
    for config in made:
        subprocess.run(["nft", "delete", "table", "inet", config.nft_table], capture_output=True)
        for tree in cgroup_trees():
            parent = Path(f"{tree}{config.cgroup_parent}")
            if parent.is_dir():
                parent.rmdir()
        for mounted in reversed(mounts_below(config.state_dir)):  # A store, when the test failed with containers in it.
            subprocess.run(["umount", "--lazy", mounted], check=True)
        shutil.rmtree(config.state_dir, ignore_errors=True)


@pytest.fixture
def outside(host_sweep: None) -> Iterator[Outside]:
    """Another machine, which reaches the host by one of its links."""
    with machine() as made:
        yield made


def mounts_below(directory: str) -> list[str]:
    points = (line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [point for point in points if point.startswith(directory + "/")]


@pytest.fixture
def host_sweep(image_root: Path, host_address: str) -> Iterator[None]:
    """Fails the test, also one that failed already, when something is left on the host."""
    before = inventory()
    yield
    until_s = time.monotonic() + SETTLED_S
    # The kernel takes some things apart after it said that they are gone; nothing tells when it is done with all.
    while (left := more_than(before)) and time.monotonic() < until_s:
        time.sleep(SETTLING_LOOK_S)
    assert not left, f"left on the host: {left}"


def more_than(before: dict[str, set[str]]) -> dict[str, list[str]]:
    """What is there now and was not before, by kind."""
    return {kind: sorted(found - before[kind]) for kind, found in inventory().items() if found - before[kind]}


def inventory() -> dict[str, set[str]]:
    """What these tests' containers may leave, by kind. Others may run containers on the same host meanwhile."""

    def lines(*argv: str, about: str) -> set[str]:
        out = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        return {line for line in out.splitlines() if about in line}

    trees = cgroup_trees()
    return {
        "mounts": {line for line in Path("/proc/self/mountinfo").read_text().splitlines() if STATE_PREFIX in line},
        # The kernel's own list: an entry in /sys/class/net goes a moment after its link.
        "links": {
            name for _, name in socket.if_nameindex() if name.startswith((LINK_PREFIX, HOST_LINK, OUTSIDE_LINK))
        },
        "descriptors of namespaces": {link for link in _descriptors() if link.startswith(("net:", "user:", "pid:"))},
        "tables": lines("nft", "list", "tables", about=TABLE_PREFIX),
        "loops": lines("losetup", "--list", "--noheadings", "--output", "BACK-FILE", about=STATE_PREFIX),
        "cgroups": {str(path) for tree in trees for path in tree.glob(f"{CGROUP_PREFIX}*")}
        | {str(path) for tree in trees for path in tree.glob(f"{CGROUP_PREFIX}*/*/")},
        "directories": {str(path) for path in Path(tempfile.gettempdir()).glob(STATE_PREFIX + "*")},
        "processes": {f"{pid} {name}" for pid, name in _processes()},
    }


def _descriptors() -> set[str]:
    found = set()
    for entry in os.scandir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(entry.path))
    return found


def _processes() -> Iterator[tuple[int, str]]:
    """Those in our containers, those that make or watch them, and our own children, zombies too."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            pid = int(entry.name)
            found = stat(pid)
            command = Path(entry.path, "cmdline").read_text()
            first_id = int(Path(entry.path, "uid_map").read_text().split()[1])
            ours = (
                ID_BASE <= first_id < ID_END
                or f"/{CGROUP_PREFIX}" in Path(entry.path, "cgroup").read_text()  # A privileged one has no own ids.
                or STATE_PREFIX in command
                or (found is not None and found.parent == os.getpid())
            )
            if ours:
                # Not its state, but for death: what was there before may work now, or sleep.
                dead = f", dead child of {found.parent}" if found is not None and found.state in "ZX" else ""
                yield pid, Path(entry.path, "comm").read_text().strip() + dead


@pytest.fixture
async def new_garden(host_sweep: None, new_config: Callable[..., GardenConfig]) -> AsyncIterator[Callable[..., Any]]:
    """Makes started gardens; all their containers are destroyed in the end, and the test fails if that fails."""
    made: list[Garden] = []

    async def make(config: GardenConfig | None = None, tell: Tell = unheard, **changes: Any) -> Garden:
        garden = Garden(config or new_config(**changes), SystemClock(), tell)
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
