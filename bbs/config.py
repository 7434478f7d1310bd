"""Settings of a BBS process, read once from one JSON file."""

from __future__ import annotations

from attrs import field, frozen

from bbs.callback_client import DENIED
from bbs.convergence.backoff import DIEGO, CrashPolicy


@frozen(kw_only=True)
class BbsConfig:
    """Every setting has a default that suits one machine, but for the database."""

    dsn: str = field(repr=False)
    """Postgres, as asyncpg takes it: postgresql://user:password@host/database, or ?host=/socket/dir."""
    id: str = "bbs-1"
    """Name of this process in chains, logs and the leader row; unique among the BBSes of one database."""
    listen_host: str = "127.0.0.1"
    listen_port: int = 8889
    """Diego's BBS port. 0 takes any free one."""
    request_budget_ms: int = 30_000
    """Budget of a request that names none; requests that start instances add the start timeout to it."""
    in_flight_max: int = 512
    """Requests worked on at once; more are answered 503 with Retry-After before anything is done."""
    body_bytes_max: int = 4 * 1024 * 1024
    database_connections_max: int = 20
    presence_ttl_s: float = 15.0
    """How long a cell counts as live after its last report, by the database's clock."""
    leader_ttl_s: float = 15.0
    """How long a convergence leader leads after its last renewal, by the database's clock."""
    convergence_interval_s: float = 1.0
    """Pause between two rounds of convergence, less or more a fifth."""
    crash_policy: CrashPolicy = DIEGO
    """When an app that ended is started again: `immediate_restarts`, `backoff_min_s`, `backoff_max_s`, `crashes_max`,
    `reset_after_s` (bbs/convergence/backoff.py). What is left out has Diego's value."""
    route_grace_s: float = 1.0
    """How long an old instance with ports serves on after its replacement runs: routers that read the rows more often
    lose no request."""
    callback_deny_networks: tuple[str, ...] = DENIED
    """Networks, as CIDR, to which no completion callback of a task is sent, whatever name leads there. Default: this
    host, link-local addresses and the metadata services there."""
    callback_timeout_s: float = 8.0
    """How long one try of a completion callback may take; there are three."""
    stop_grace_s: float = 20.0
    """How long requests under way may take to finish after SIGTERM."""
