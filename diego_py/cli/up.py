"""`diego up`: a whole installation on this machine, in the foreground. Ctrl-C takes all of it away again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from attrs import asdict, frozen

from diego_py.cli import rootfs_busybox, rootfs_tree, screen, up_simulated
from diego_py.cli.lines import BAD, DIM, GOOD, HEAD, Line
from diego_py.cli.session import EXIT_STATUS, Session, with_session
from diego_py.embedded.children import Child
from diego_py.embedded.cluster import BBS, Cluster, ClusterError
from diego_py.embedded.cluster_layout import free_port
from diego_py.embedded.postgres import EmbeddedPostgresError
from diego_py.embedded.simulated import CELLS, SimulatedCluster
from diego_py.errors import DiegoError

STATE_DIR = Path("/var/lib/diego/cluster")
CHILD_POLL_S = 0.2
FAILED = EXIT_STATUS["platform"]


@frozen
class Wanted:
    """What the options say."""

    cells: int
    state_dir: Path | None
    bbs_port: int
    diego_port: int | None
    memory: int | None
    """Megabytes of each cell."""
    image_root: Path


@click.command()
@click.option("--cells", type=click.IntRange(1, 100_000), default=2, show_default=True, help="Real ones: at most 16.")
@click.option("--simulated", is_flag=True, help="Cells only remember their containers: no root, no Linux needed.")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    help=f"[default: {STATE_DIR}; with --simulated one that goes at the end]",
)
@click.option("--bbs-port", type=click.IntRange(0, 65_535), default=8889, show_default=True, help="0 takes a free one.")
@click.option("--diego-port", type=click.IntRange(0, 65_535), help="Also serve Diego's own wire here, with TLS.")
@click.option("--memory", type=click.IntRange(64), metavar="MB", help="Of each cell. [default: 3/4 of all]")
@click.option("--keep", is_flag=True, help="Leave containers running at the end; the next `up` adopts them.")
@click.option("--image-root", type=click.Path(path_type=Path), default=rootfs_tree.IMAGE_ROOT, show_default=True)
@with_session
def up(session: Session, /, simulated: bool, keep: bool, **options: Any) -> None:
    """Run Postgres, a BBS and cells on this machine until Ctrl-C. Needs root, but with --simulated.

    At the end the LRPs are deleted and everything is taken off the host, unless --keep leaves containers, LRPs and
    their addresses as they are. A cell that you kill stays dead until the next `up`: watch its work move.
    """
    wanted, context = Wanted(**options), click.get_current_context()
    if simulated:
        up_simulated.require_sense(context, "keep", "image_root")
        context.exit(_up_simulated(wanted))
    place = wanted.state_dir or STATE_DIR
    settings = _bbs_settings(place, wanted.diego_port)
    cluster = Cluster(place, wanted.cells, wanted.bbs_port, wanted.image_root, wanted.memory or 0, settings)
    context.exit(asyncio.run(_run(cluster, keep)))


def _up_simulated(wanted: Wanted) -> int:
    with up_simulated.directory(wanted.state_dir) as place:
        cluster = SimulatedCluster(
            place,
            wanted.cells,
            wanted.bbs_port,
            _bbs_settings(place, wanted.diego_port),
            up_simulated.cell_settings(wanted.memory),
            durable=wanted.state_dir is not None,
        )
        return asyncio.run(_run_simulated(cluster))


def _bbs_settings(state_dir: Path, port: int | None) -> dict[str, Any]:
    """Settings of Diego's own wire (docs/diego.md), with an authority made for this run, if it has a port."""
    if port is None:
        return {}
    from diego_py.embedded import development_ca  # needs the extra `embedded`, as only this does here

    directory = state_dir.resolve() / "tls"
    directory.mkdir(parents=True, exist_ok=True)
    files = development_ca.write(development_ca.Authority.make(), directory)
    return {"diego": {"listen_port": port or free_port(), "tls": asdict(files)}}


async def _run(cluster: Cluster, keep: bool) -> int:
    """Start, wait for Ctrl-C or a failure, take all away. Returns the exit status."""
    stopping = _stopping()
    try:
        _ensure_busybox(cluster.image_root)
        await cluster.start()
    except (ClusterError, EmbeddedPostgresError, DiegoError) as failed:
        screen.show([Line(f"✗ {failed}", BAD)], err=True)
        return FAILED
    try:
        _greet(cluster)
        ended = await _until_over(cluster, stopping)
    finally:
        left = await _take_away(cluster, keep)
    return FAILED if ended or left else 0


async def _run_simulated(cluster: SimulatedCluster) -> int:
    """The same; there is nothing to take away but the processes."""
    stopping = _stopping()
    try:
        await cluster.start()
    except (ClusterError, EmbeddedPostgresError) as failed:
        screen.show([Line(f"✗ {failed}", BAD)], err=True)
        return FAILED
    try:
        up_simulated.greet(cluster)
        ended = await _until_over(cluster, stopping)
    finally:
        await cluster.stop()
    return FAILED if ended else 0


def _stopping() -> asyncio.Event:
    """Set by Ctrl-C."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    return stopping


async def _until_over(cluster: Cluster | SimulatedCluster, stopping: asyncio.Event) -> Child | None:
    """Wait for Ctrl-C, or for the end of the BBS or of all cells, which is returned. A cell that ends is only told."""
    while not stopping.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHILD_POLL_S):
                await stopping.wait()
        child = cluster.failed_child()
        if child is None:
            continue
        status = child.process.returncode
        screen.show([Line(f"✗ {child.name} ended with status {status}; its log: {child.log_path}", BAD)], err=True)
        if child.name in (BBS, CELLS):
            return child
    return None


async def _take_away(cluster: Cluster, keep: bool) -> bool:
    """Delete what is desired, stop the processes, sweep the host. Returns whether something is left."""
    problems: list[str] = []
    if not keep:
        screen.show([Line("deleting all LRPs; --keep would have left them", DIM)], err=True)
        try:
            problems = await cluster.delete_everything()
        except DiegoError as error:
            problems = [error.root.message]
    await cluster.stop()
    if keep:
        screen.show([Line(f"containers run on; the same again adopts them: diego up --state-dir {cluster.state_dir}")])
        return False
    left = await cluster.purge()
    screen.show([Line(f"✗ {problem}", BAD) for problem in problems], err=True)
    screen.show([Line(f"✗ left on this host: {thing}", BAD) for thing in left], err=True)
    if not left:
        screen.show([Line("✓ nothing is left on this host", GOOD)])
    return bool(left)


def _ensure_busybox(image_root: Path) -> None:
    """A first root file system to try things with, where this machine can make one."""
    if not rootfs_tree.names(image_root):
        rootfs_busybox.add(image_root)


def _greet(cluster: Cluster) -> None:
    names = ", ".join(f"{child.name} (pid {child.process.pid})" for child in cluster.children)
    flag = "" if cluster.url.endswith(":8889") else f"export DIEGO_BBS={cluster.url}\n    "
    rootfs = rootfs_tree.names(cluster.image_root)[0]
    wire = cluster.bbs_settings.get("diego")
    screen.show(
        [
            Line(f"✓ {cluster.url}   {names}", GOOD),
            Line(f"  state and logs: {cluster.state_dir}", DIM),
            *(_told_of_wire(wire) if wire else ()),
            Line("try, in another terminal:", HEAD),
            Line(f"    {flag}diego cells"),
            Line(f"    diego desire web --rootfs {rootfs} --port 8080 --http-check 8080 -- httpd -f -p 8080 -h /etc"),
            Line("    diego ps web; diego scale web 3; diego logs web; diego delete web"),
            Line(f"    diego desire typo --rootfs {rootfs} -- /bin/no-such-program; diego explain typo"),
            Line("Ctrl-C ends all of it"),
        ]
    )


def _told_of_wire(wire: Mapping[str, Any]) -> list[Line]:
    directory = Path(wire["tls"]["authority"]).parent
    shown = f"{directory}/ca.pem, {directory}/client.pem, {directory}/client.key"
    return [Line(f"  Diego's wire: https://127.0.0.1:{wire['listen_port']}   {shown}", DIM)]
