"""`diego up --simulated`: the same with cells that only remember their containers. Needs no root, and no Linux."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from diego_py.cli import screen
from diego_py.cli.lines import DIM, GOOD, HEAD, Line
from diego_py.embedded.simulated import CELLS, SimulatedCluster


@contextmanager
def directory(asked: Path | None) -> Iterator[Path]:
    """Where its state is: where it was asked for, or else a directory that goes with it."""
    if asked is not None:
        yield asked
        return
    with tempfile.TemporaryDirectory(prefix="diego-") as made:
        Path(made).chmod(0o711)  # Postgres, which never runs as root, passes through.
        yield Path(made)


def require_sense(context: click.Context, *nothing: str) -> None:
    """Options that say nothing of simulated cells must not be there. Raises UsageError."""
    for name in nothing:
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name.replace('_', '-')} says nothing of simulated cells")


def cell_settings(memory_mb: int | None) -> dict[str, Any]:
    return {} if memory_mb is None else {"memory_mb": [memory_mb]}


def greet(cluster: SimulatedCluster) -> None:
    """What there is now, and what to try."""
    names = ", ".join(
        f"{cluster.cells} simulated cells (pid {child.process.pid})"
        if child.name == CELLS
        else f"{child.name} (pid {child.process.pid})"
        for child in cluster.children
    )
    flag = "" if cluster.url.endswith(":8889") else f"export DIEGO_BBS={cluster.url}\n    "
    lost = f"curl -X PUT -d '{{\"cells\": [\"sim-00001\"]}}' {cluster.cells_url}/v1/simulation/lost"
    screen.show(
        [
            Line(f"✓ {cluster.url}   {names}", GOOD),
            Line(f"  logs: {cluster.state_dir / 'logs'}", DIM),
            Line("try, in another terminal (no process of yours ever runs; all else is real):", HEAD),
            Line(f"    {flag}diego cells"),
            Line("    diego desire web --instances 3 --rootfs preloaded:busybox -- sleep 1000; diego ps web"),
            Line("    diego desire huge --memory 99999 --rootfs preloaded:busybox -- sleep 1; diego explain huge"),
            Line("    diego task run hello --rootfs preloaded:busybox -- sh -c 'exit 3'"),
            Line(f"    {lost}; diego ps web   # a cell is lost: watch its instances move within 15 s"),
            Line("Ctrl-C ends all of it"),
        ]
    )
