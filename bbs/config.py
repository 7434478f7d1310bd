"""Settings of a BBS process, read once from one JSON file."""

from __future__ import annotations

from ipaddress import ip_address

from attrs import field, frozen, validators

from bbs.callback_client import DENIED
from bbs.convergence.backoff import DIEGO, CrashPolicy
from bbs.pace import BEATS_PER_SECOND_MAX, PRESENCE_TTL_S
from diego_py.http.tls import TlsFiles
from diego_py.models.supported import ONLY_DEFAULT

NO_EFFECT = ("trusted_system_certificates_path", "certificate_properties", "network")
"""Cloud controllers send these always. They mean something where an operator gave Diego's cells certificates to mount,
an authority for identities, or a network plugin that reads properties; our cells have none of them."""


@frozen(kw_only=True)
class DiegoWireConfig:
    """Where Diego's own wire is served (docs/diego.md)."""

    listen_host: str = "127.0.0.1"
    listen_port: int = 8889
    """Diego's. The native API then needs another one on this address. 0 takes any free one."""
    tls: TlsFiles | None = None
    """Clients must show a certificate: `authority`, `certificate` and `key`, each a path. None is only for loopback."""
    ignored_fields: tuple[str, ...] = NO_EFFECT
    """Fields of definitions that clients send, this release does not execute, and may be left out. What is not named
    here is refused, as in the native API. Default: what also a Diego does nothing with unless it was set up for it."""

    def __attrs_post_init__(self) -> None:
        if self.tls is None and not ip_address(self.listen_host).is_loopback:
            raise ValueError("diego.tls is needed where others than this machine can connect")
        if unknown := set(self.ignored_fields) - set(ONLY_DEFAULT):
            raise ValueError(f"diego.ignored_fields takes {', '.join(ONLY_DEFAULT)}; not {', '.join(sorted(unknown))}")


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
    presence_ttl_s: float = PRESENCE_TTL_S
    """How long a cell counts as live after its last report, by the database's clock. With many cells it is longer."""
    heartbeats_per_second_max: float = field(default=BEATS_PER_SECOND_MAX, validator=validators.gt(0))
    """Of all cells at all BBSes. Where its interval would make more, each cell is told to report less often, and its
    presence lasts three such pauses: with 7,500 cells 15 s and 45 s. See docs/decisions/0015-pace.md."""
    leader_ttl_s: float = 15.0
    """How long a convergence leader leads after its last renewal, by the database's clock."""
    convergence_interval_s: float = 1.0
    """Pause between two rounds of convergence, less or more a fifth."""
    crash_policy: CrashPolicy = DIEGO
    """When an app that ended is started again: `immediate_restarts`, `backoff_min_s`, `backoff_max_s`, `crashes_max`,
    `reset_after_s` (bbs/convergence/backoff.py). What is left out has Diego's value."""
    bin_pack_weight: float = field(default=0.0, validator=validators.ge(0))
    """What a cell's place in its zone, by its id, costs in the auction (Diego's bin_pack_first_fit_weight). 0 spreads
    load over all cells; with 0.1 the first ten of a zone fill up before others get much. See docs/auction.md."""
    route_grace_s: float = 1.0
    """How long an old instance with ports serves on after its row says that no request may come to it: routers that
    read the rows more often lose no request."""
    callback_deny_networks: tuple[str, ...] = DENIED
    """Networks, as CIDR, to which no completion callback of a task is sent, whatever name leads there. Default: this
    host, link-local addresses and the metadata services there."""
    callback_timeout_s: float = 8.0
    """How long one try of a completion callback may take; there are three."""
    diego: DiegoWireConfig | None = None
    """Diego's own wire for its clients, on a socket of its own; None: not served."""
    stop_grace_s: float = 20.0
    """How long requests under way may take to finish after SIGTERM."""
