"""Starts and ends: through the whole cascade, and by runc alone with the same confinement, in turn and in random order.

A round measures everything once. Each start comes twice: cold (no process has moved between cgroups for 100 ms, as on a
quiet machine) and hot (one has moved just now, as on a busy one); see RCU in docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

from attrs import define, field

from diego_py.cli import rootfs_busybox
from diego_py.embedded.cluster import Cluster
from scripts.benchmarks import machine, report
from scripts.benchmarks.api import Api, lrp
from scripts.benchmarks.bare_runc import BareRunc
from scripts.benchmarks.figures import Figures
from scripts.benchmarks.first_instruction import COMMAND, NextContainer
from scripts.benchmarks.garden_steps import GardenSteps
from scripts.benchmarks.hundred import Scale
from scripts.benchmarks.prepared import Prepared

NOPE = ("/bin/nope",)
TOO_MUCH_MB = 1_000_000
FLOORS_PER_ROUND = 5
WARM_UP_ROUNDS = 2


@define
class Starts:
    """One measurement of each kind."""

    cluster: Cluster
    api: Api
    runc: BareRunc
    yardsticks: tuple[BareRunc, ...]
    """The runtimes that are measured alone; runc is the first."""
    prepared: Prepared
    figures: Figures = field(factory=Figures)
    hops: dict[str, list[float]] = field(factory=lambda: defaultdict(list))
    noisy: int = 0
    _named: int = 0

    def round(self) -> None:
        self.figures.begin_round()
        kinds: list[Callable[[], None]] = [self.bad_command, self.bare_bad_command, self.refusal, self.hop]
        for heat in ("cold", "hot"):
            kinds += [partial(self.bare, heat, yardstick) for yardstick in self.yardsticks]
            kinds += [partial(kind, heat) for kind in (self.start, self.bare_docker, self.bare_default)]
        random.shuffle(kinds)
        for kind in kinds:
            kind()

    def _settle(self, heat: str = "cold") -> None:
        self.prepared.wait()
        self.noisy += not machine.wait_for_idle()
        machine.cool_down()
        if heat == "hot":
            machine.heat_up(self.runc.cgroups)

    def _guid(self) -> str:
        self._named += 1
        return f"bench-{self._named}"

    def start(self, heat: str) -> None:
        """POST to the first instruction and to the answer; then DELETE to its answer."""
        guid = self._guid()
        depots = [layout.state_dir / "containers" for layout in self.cluster.layouts]
        with NextContainer(depots) as began:
            self._settle(heat)
            began_s = time.perf_counter()
            answer = self.api.desire(lrp(guid, COMMAND)).expect(201)
        assert began.at_s is not None
        assert began.directory is not None
        self.figures.add(f"start {heat}: first instruction", (began.at_s - began_s) * 1000)
        self.figures.add(f"start {heat}: answer", answer.seconds * 1000)
        if heat == "cold":
            for name, self_ms in answer.hops:
                self.hops[name].append(self_ms)
        for yardstick in self.yardsticks:
            if not yardstick.confined:
                yardstick.adopt_configuration(began.directory)
        removed = self.api.delete(guid).expect(200, 204)
        self.figures.add(f"delete after {heat}", removed.seconds * 1000)

    def bare(self, heat: str, runtime: BareRunc) -> None:
        bundle = runtime.confined_bundle()
        self._settle(heat)
        begun = runtime.run(bundle)
        self.figures.add(f"{runtime.name} {heat}: first instruction", begun.mark_s * 1000)
        self.figures.add(f"{runtime.name} {heat}: first byte in the pipe", begun.pipe_s * 1000)
        runtime.discard(bundle)
        if heat == "cold":
            bundle = runtime.confined_bundle()
            runtime.run_detached(bundle)
            self.figures.add(f"{runtime.name}: kill, wait, delete", runtime.remove(bundle) * 1000)
            runtime.discard(bundle)

    def bare_docker(self, heat: str) -> None:
        bundle = self.runc.docker_bundle()
        self._settle(heat)
        begun = self.runc.run(bundle)
        self.figures.add(f"runc, Docker's confinement {heat}: first instruction", begun.mark_s * 1000)
        self.runc.discard(bundle)

    def bare_default(self, heat: str) -> None:
        bundle = self.runc.default_bundle()
        self._settle(heat)
        begun = self.runc.run(bundle)
        self.figures.add(f"runc spec default {heat}: first instruction", begun.mark_s * 1000)
        self.runc.discard(bundle)

    def bad_command(self) -> None:
        """The answer has the runtime's own words in it, and nothing is left."""
        guid = self._guid()
        self._settle()
        answer = self.api.desire(lrp(guid, NOPE)).expect(500)
        assert b"/bin/nope" in answer.body
        assert b"o such file or directory" in answer.body
        self.figures.add("bad command: whole text", answer.seconds * 1000)
        self.api.delete(guid).expect(200, 204)

    def bare_bad_command(self) -> None:
        bundle = self.runc.confined_bundle(NOPE)
        self._settle()
        seconds, text = self.runc.fail(bundle)
        assert "/bin/nope: no such file or directory" in text
        self.figures.add("runc bad command: whole text", seconds * 1000)
        self.runc.discard(bundle)

    def refusal(self) -> None:
        """More memory than any cell has: the cells are asked, then the answer says what each of them has."""
        guid = self._guid()
        self._settle()
        answer = self.api.desire(lrp(guid, COMMAND, memory_mb=TOO_MUCH_MB)).expect(503)
        assert b"memory_mb" in answer.body
        self.figures.add("refusal: whole text", answer.seconds * 1000)
        self.api.delete(guid).expect(200, 204)

    def hop(self) -> None:
        """The least a request can take: one hop that does nothing."""
        self._settle()
        for _ in range(FLOORS_PER_ROUND):
            answer = self.api.request("GET", "/livez").expect(200)
        self.figures.add("one hop: GET /livez", answer.seconds * 1000)


async def measure(rounds: int, scale_rounds: int, home: Path, runtime: str = "runc") -> report.Report:
    """The loop is only needed for what the cluster does at its begin and end; requests are made without one."""
    program = machine.runtime(runtime, home)
    image_root = home / "rootfs"
    image = rootfs_busybox.add(image_root)
    cluster = Cluster(home / "cluster", cells=2, image_root=image_root, cell_settings={"runtime_path": program})
    runc = BareRunc(home / "bare", image)
    (home / "alone").mkdir()
    alone = machine.runtime(runtime, home / "alone", as_cell=False)
    others = [BareRunc(home / "bare-other", image, runtime, alone)] if runtime != "runc" else []
    try:
        async with cluster:
            for yardstick in (runc, *others):
                yardstick.prepare()
            prepared = Prepared(cluster)
            starts = Starts(cluster, Api(cluster.url), runc, (runc, *others), prepared)
            starts.figures.begin_round()
            starts.start("hot")  # has garden write the configuration that the bare runs take over
            for _ in range(WARM_UP_ROUNDS if rounds else 0):
                starts.round()
            starts.figures.rounds.clear()
            starts.hops.clear()
            starts.noisy = 0
            for number in range(rounds):
                starts.round()
                report.progress("round", number + 1, rounds)
            scale = Scale(starts.api, runc, prepared)
            for number in range(scale_rounds):
                scale.round()
                report.progress("round of 100 containers", number + 1, scale_rounds)
            steps = GardenSteps(cluster)
            await steps.measure(rounds)
            left = [*await cluster.delete_everything(), *map(str, cluster.leftovers())]
        left += map(str, await cluster.purge())
        return report.Report(
            machine.facts(program), starts.figures, starts.hops, steps.figures, scale.figures, starts.noisy, left
        )
    finally:
        await cluster.purge()
        for yardstick in (runc, *others):
            yardstick.clean_up()


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="rounds of single starts (30)")
    parser.add_argument("--scale-rounds", type=int, default=5, help="rounds of 100 containers (5)")
    parser.add_argument("--runtime", choices=("runc", "crun"), default="runc", help="the cells' OCI runtime (runc)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure of every round there")
    options = parser.parse_args(argv)
    home = Path(tempfile.mkdtemp(prefix="diego-bench-"))
    home.chmod(0o711)
    try:
        found = asyncio.run(measure(options.rounds, options.scale_rounds, home, options.runtime))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print(found.text())
    if options.json:
        options.json.write_text(json.dumps(found.document(), indent=1))
    return 1 if found.left else 0
