"""The yardstick: runc alone, without conmon, network, database or anybody who waits for an answer.

A bundle has its own overlay of the same image, mounted before the clock runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from cells.garden import kernel, memory, rootfs
from cells.garden.bundle.capabilities import ROOT as ROOT_CAPABILITIES
from cells.garden.cgroups import Cgroups
from cells.garden.depot import Directory
from scripts.benchmarks.first_instruction import COMMAND, IN_CREATE, TIMEOUT_S

FIRST_ID = 2_000_000_000
"""Above every range of ids that a cluster gives out."""
CGROUP_PARENT = "/diego-bench"
STATE_BYTES_MAX = 64 << 20
"""Of the runtime's own directory, which is in memory, as /run is."""
DOCKER_ALSO = ("CAP_AUDIT_WRITE", "CAP_MKNOD", "CAP_NET_RAW")
"""What Docker leaves to a container's root beyond what we do."""


@frozen
class Bundle:
    """A container that only has to be started."""

    name: str
    directory: Directory


@frozen
class Begun:
    """Seconds from before the spawn of runc."""

    mark_s: float
    pipe_s: float


@define
class BareRunc:
    """A runtime with a state directory of its own, and bundles made after the configuration that garden wrote."""

    home: Path
    image: Path
    name: str = "runc"
    """What its figures are called."""
    program: str = "runc"
    cgroups: Cgroups = field(factory=lambda: Cgroups.of_host(CGROUP_PARENT), init=False)
    confined: str = field(default="", init=False)
    """The configuration that garden wrote for the same workload, as text."""
    _garden_homes: tuple[str, ...] = field(default=(), init=False)
    """The directories of that container: its own, and its volume."""
    _ids: subprocess.Popen[bytes] | None = field(default=None, init=False)
    """A process that does nothing, in a user namespace to whose ids the images are shifted."""
    _made: int = field(default=0, init=False)

    def prepare(self) -> None:
        for path in (self.home, self.home / "runc"):
            path.mkdir(mode=0o711, exist_ok=True)
            path.chmod(0o711)
        memory.keep(self.home / "runc", 0o711, STATE_BYTES_MAX)
        self.cgroups.prepare()
        self._ids = subprocess.Popen(["unshare", "--user", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._ids.stdin is not None
        assert self._ids.stdout is not None
        self._ids.stdin.write(b".")
        self._ids.stdin.flush()
        assert self._ids.stdout.read(1) == b"."  # It is in its namespace.
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{self._ids.pid}/{name}").write_text(f"0 {FIRST_ID} 65536")

    def adopt_configuration(self, directory: Path) -> None:
        """Take over the confinement of a container of garden while it exists."""
        self.confined = (directory / "bundle" / "config.json").read_text()
        volume = json.loads((directory / "state.json").read_text())["volume"]
        self._garden_homes = (str(directory), volume)

    def confined_bundle(self, command: tuple[str, ...] = COMMAND) -> Bundle:
        """garden's configuration, whole: only paths, ids, cgroup and command are this bundle's own."""
        bundle = self._bundle()
        config = self._config(bundle)
        config["process"]["args"] = list(command)
        mapping = [{"containerID": 0, "hostID": FIRST_ID, "size": 65536}]
        config["linux"] |= {"uidMappings": mapping, "gidMappings": mapping}
        config["linux"]["namespaces"] = [{"type": entry["type"]} for entry in config["linux"]["namespaces"]]
        config["linux"]["cgroupsPath"] = self.cgroups.path(bundle.name)
        self._write(bundle, config)
        return bundle

    def default_bundle(self) -> Bundle:
        """`runc spec` as it comes: five namespaces, no user namespace, no seccomp, no limits."""
        bundle = self._bundle(shifted=False)
        subprocess.run(["runc", "spec", "--bundle", bundle.directory.bundle], check=True)
        config = json.loads((bundle.directory.bundle / "config.json").read_text())
        config["process"] |= {"args": list(COMMAND), "terminal": False}
        config["root"] = {"path": str(bundle.directory.rootfs), "readonly": False}
        config["linux"]["cgroupsPath"] = self.cgroups.path(bundle.name)
        self._write(bundle, config)
        return bundle

    def docker_bundle(self, command: tuple[str, ...] = COMMAND) -> Bundle:
        """What Docker gives a container by default, around the same list of allowed system calls as ours.

        No user namespace, fourteen capabilities, three architectures of seccomp, setuid programs work, hidden and
        read-only paths, a memory limit.
        """
        bundle = self._bundle(shifted=False)
        config = self._config(bundle)
        config["process"] |= {"args": list(command), "noNewPrivileges": False}
        held = [*ROOT_CAPABILITIES, *DOCKER_ALSO]
        config["process"]["capabilities"] = {"bounding": held, "effective": held, "permitted": held}
        linux = config["linux"]
        for name in ("uidMappings", "gidMappings", "sysctl"):
            linux.pop(name, None)
        kinds = ("pid", "network", "ipc", "uts", "mount", "cgroup")
        linux["namespaces"] = [{"type": kind} for kind in kinds]
        linux["seccomp"]["architectures"] = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
        linux["cgroupsPath"] = self.cgroups.path(bundle.name)
        self._write(bundle, config)
        return bundle

    def _config(self, bundle: Bundle) -> dict[str, Any]:
        """garden's, with this bundle's paths."""
        text = self.confined
        for home in self._garden_homes:
            text = text.replace(home, str(bundle.directory.path))
        config: dict[str, Any] = json.loads(text)
        return config

    def _bundle(self, shifted: bool = True) -> Bundle:
        self._made += 1
        directory = _directory(self.home / f"b{self._made}")
        directory.path.mkdir()
        for path in (directory.bundle, directory.etc, directory.lower, directory.upper, directory.work):
            path.mkdir()
        directory.rootfs.mkdir()
        if shifted:
            assert self._ids is not None
            namespace = os.open(f"/proc/{self._ids.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            try:
                rootfs.mount([self.image], directory, namespace, FIRST_ID)
            finally:
                os.close(namespace)
            rootfs.write_etc(directory, FIRST_ID, "bench", ["192.0.2.1 bench"], "")
        else:
            rootfs.write_etc(directory, 0, "bench", ["192.0.2.1 bench"], "")
            options = f"lowerdir={self.image},upperdir={directory.upper},workdir={directory.work}"
            kernel.mount("overlay", str(directory.rootfs), "overlay", 0, options)
        return Bundle(f"bench-{self.name}-{self._made}", directory)

    def run(self, bundle: Bundle) -> Begun:
        """`runc run` until its process has begun; then the process is killed and runc cleans up after it."""
        watch = kernel.inotify(str(bundle.directory.upper), IN_CREATE)
        began_s = time.perf_counter()
        with open(bundle.directory.log, "wb") as log:
            argv = self._run_argv(bundle)
            runc = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        assert runc.stdout is not None
        waiting, at = {watch, runc.stdout.fileno()}, dict[int, float]()
        while waiting:
            ready, _, _ = select.select(waiting, [], [], TIMEOUT_S)
            assert ready, f"{bundle.name} did not begin"
            at.update((fd, time.perf_counter() - began_s) for fd in ready)
            waiting -= set(ready)
        begun = Begun(at[watch], at[runc.stdout.fileno()])
        os.close(watch)
        os.kill(self._init(bundle), signal.SIGKILL)
        runc.wait()
        runc.stdout.close()
        return begun

    def fail(self, bundle: Bundle) -> tuple[float, str]:
        """`runc run` of a command that does not exist: how long until its whole text is there."""
        began_s = time.perf_counter()
        ended = subprocess.run(self._run_argv(bundle), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        return time.perf_counter() - began_s, ended.stderr

    def run_detached(self, bundle: Bundle) -> float:
        """`runc run --detach` to its return."""
        began_s = time.perf_counter()
        null = subprocess.DEVNULL
        subprocess.run(self._run_argv(bundle, "--detach"), stdin=null, stdout=null, stderr=null, check=True)
        return time.perf_counter() - began_s

    def remove(self, bundle: Bundle) -> float:
        """Kill, wait for the death, `runc delete`: the quick way. `delete --force` would poll in steps of 100 ms."""
        began_s = time.perf_counter()
        pidfd = os.pidfd_open(self._init(bundle))
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        select.select([pidfd], [], [], TIMEOUT_S)
        os.close(pidfd)
        subprocess.run([*self._argv(), "delete", bundle.name], check=True)
        return time.perf_counter() - began_s

    def discard(self, bundle: Bundle) -> None:
        """Take away what a bundle has on the disk; its container is gone."""
        rootfs.unmount(bundle.directory)
        shutil.rmtree(bundle.directory.path)
        bundle.directory.log.unlink(missing_ok=True)

    def clean_up(self) -> None:
        """Whatever an interrupted round left."""
        for state in (self.home / "runc").glob("*"):
            subprocess.run([*self._argv(), "delete", "--force", state.name], check=False)
        for path in self.home.glob("b*[0-9]"):
            rootfs.unmount(_directory(path))
        memory.give_back(self.home / "runc")
        for tree in self.cgroups.trees:
            with contextlib.suppress(FileNotFoundError):  # crun makes none where it has nothing to say.
                os.rmdir(tree.mount + self.cgroups.parent)
        if self._ids is not None:
            self._ids.communicate()

    def _argv(self) -> list[str]:
        return [self.program, "--root", str(self.home / "runc")]

    def _run_argv(self, bundle: Bundle, *options: str) -> list[str]:
        return [*self._argv(), "run", *options, "--bundle", str(bundle.directory.bundle), bundle.name]

    def _init(self, bundle: Bundle) -> int:
        """Its command has one process at a time; runc writes its pid file only some time after that has begun."""
        (pid,) = self.cgroups.processes(bundle.name)
        return pid

    @staticmethod
    def _write(bundle: Bundle, config: dict[str, Any]) -> None:
        (bundle.directory.bundle / "config.json").write_text(json.dumps(config))


def _directory(path: Path) -> Directory:
    """All that a bundle has, in one directory."""
    return Directory(path, path.with_suffix(".log"), path)
