"""Settings of a cell process: one JSON file, read once, strict."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import field, frozen

from cells.executor.transfers.settings import TransferSettings
from cells.garden.config import PRIVATE_NETWORKS, GardenConfig, ImageSettings
from cells.garden.quota.probe import ANY
from diego_py.models.cell import CellCapacity
from diego_py.models.identifiers import CellId
from diego_py.service.config import ConfigError

MEBIBYTE: Final = 1024 * 1024


@frozen(kw_only=True)
class CellConfig:
    """Two cells on one host must differ in every setting that has no default, and in those marked *host-wide*."""

    cell_id: CellId
    """Name of the cell; unique in the whole installation and kept over restarts."""
    zone: str = ""
    """Failure domain; instances of one LRP are spread over zones first."""
    listen_host: str = "127.0.0.1"
    """Address that the rep listens on. Only BBSes should reach it."""
    listen_port: int = 1800
    """TCP port that the rep listens on. 0 takes any free one. *Host-wide*."""
    url: str = ""
    """Where BBSes reach the rep. Empty is `http://LISTEN_HOST:PORT`."""
    address: str = "127.0.0.1"
    """IPv4 address of the host at which published ports are reached."""
    bbs_urls: tuple[str, ...]
    """BBSes, or one load balancer before them. The next one is tried when one fails."""
    state_dir: str
    """Directory of everything the cell keeps; mode 0711 all the way up."""
    image_root: str
    """Directory with one directory for each `preloaded:` rootfs."""
    memory_mb: int = 0
    """Megabytes to give to containers. 0 is all memory of the host."""
    disk_mb: int = 0
    """Megabytes to give to containers. 0 is `volumes_store_mb`, or else the size of the file system they write to."""
    volumes_dir: str = ""
    """Directory that containers write to; empty is `volumes` in `state_dir`. Its file system limits their disk: XFS or
    ext4 mounted with prjquota, btrfs with quotas on, or else an ext4 image for each container that has a limit."""
    volumes_store_mb: int = 0
    """Megabytes of a btrfs that the cell makes in a file of `state_dir` and mounts at `volumes_dir`; sparse, so keep it
    below what is free. 0 makes none. An existing one keeps its size."""
    disk_driver: str = ANY
    """How disk is limited: auto, project, btrfs, loop or none. auto takes the first that works, and is told by
    `/readyz?verbose`; another one that does not work keeps the cell from starting."""
    inodes_max: int = 200_000
    """Files of a container, where XFS or ext4 count them."""
    cpu_hard_limit_millis: int = 0
    """Thousandths of a processor that an LRP with `cpu_weight` 100 may use at most, others in proportion. 0: as much
    as nobody else uses."""
    containers_max: int = 250
    """Number of containers."""
    network: str = "10.254.0.0/22"
    """Addresses of containers, as CIDR. *Host-wide*."""
    network6: str = ""
    """IPv6 addresses of containers beside those, as CIDR of /104 or wider; empty is none. A unique local one (fc00::/7)
    is masqueraded; any other is routed as it is, which the network outside must know. The host then forwards IPv6.
    *Host-wide*."""
    port_first: int = 61001
    """First port of the host for published ports. *Host-wide*, as the next one."""
    port_count: int = 4534
    """Number of ports from `port_first` up."""
    id_base: int = 1_048_576
    """First user and group id of the host for containers. *Host-wide*, as the next one."""
    id_slots: int = 1024
    """Number of id ranges of 65,536, one for each container."""
    cgroup_parent: str = "/diego"
    """cgroup below which containers live. *Host-wide*."""
    interface_prefix: str = "diego"
    """Beginning of network interface names, up to 8 lower-case letters and digits, a letter first and last.
    *Host-wide*, and no cell's may be the beginning of another's: the firewall matches by it."""
    nft_table: str = "diego"
    """Name of the firewall table. *Host-wide*."""
    deny_networks: tuple[str, ...] = PRIVATE_NETWORKS
    """Networks that containers may not connect to unless an egress rule of theirs names it, as CIDR. Default: private,
    link-local, metadata and the like. The host and other containers are closed in any case."""
    egress_default: str = "open"
    """Whether containers reach the rest of the world without an egress rule. `closed`: only what rules name, and the
    name servers."""
    dns_servers: tuple[str, ...] = ()
    """Name servers of containers; port 53 of them is open to all, also at a private address or on the host. Empty:
    those of the host that are not on its loopback, read when the cell starts."""
    dns_search: tuple[str, ...] = ()
    """Domains that containers search. Empty: the host's."""
    dns_options: tuple[str, ...] = ()
    """Words for `options` in resolv.conf. Empty: the host's."""
    extra_hosts: tuple[str, ...] = ()
    """Lines for /etc/hosts of every container: an address and its names."""
    image_store_bytes_max: int = 32 * 1024 * MEBIBYTE
    """Bytes of disk for unpacked layers of images; those used least recently go, never those that a container uses."""
    layer_bytes_max: int = 16 * 1024 * MEBIBYTE
    """Bytes of one layer, unpacked."""
    layer_entries_max: int = 1_000_000
    """Files and directories of one layer."""
    default_registry: str = ""
    """HOST[:PORT] of the registry of `docker:///repository`. Empty: a rootfs has to name its registry."""
    registry_mirrors: Mapping[str, tuple[str, ...]] = field(factory=dict)
    """HOST[:PORT] of a registry to those that are asked first, without credentials; the registry itself is the last."""
    registry_ca_file: str = ""
    """PEM file of certificate authorities to trust for registries, besides the system's."""
    insecure_registries: tuple[str, ...] = ()
    """HOST[:PORT] of registries to speak plain HTTP to; it gets no passwords. Loopback needs no entry."""
    allowed_registries: tuple[str, ...] = ("*",)
    """HOST[:PORT] of registries that tenants may name, where HOST may be `*.DOMAIN` and PORT `*`. `*` is any host at a
    public address. Every other entry, and whatever the settings above name, may also be at a private address, on
    loopback or on the host itself; nothing else may, nor what a registry redirects to."""
    image_proxy: str = ""
    """http://HOST:PORT through which the cell reaches registries at public addresses; those that the config names are
    reached directly. It is then the proxy that has to refuse private addresses. Empty is none."""
    image_dirs: tuple[str, ...] = ()
    """Directories in which `oci:` rootfses may lie. Empty: such a rootfs is refused."""
    transfer_hosts: tuple[str, ...] = ("*",)
    """HOST[:PORT] that downloads and uploads of tenants may go to, written and judged as `allowed_registries`: `*` is
    any host at a public address, every other entry may be at any."""
    transfer_ca_file: str = ""
    """PEM file of certificate authorities to trust for downloads and uploads, besides the system's."""
    transfer_proxy: str = ""
    """http://HOST:PORT through which downloads and uploads reach public addresses, as `image_proxy`; hosts that
    `transfer_hosts` names are reached directly. Empty is none."""
    download_cache_bytes_max: int = 10 * 1024 * MEBIBYTE
    """Bytes of disk for downloads that have a cache key; those used least recently go."""
    download_bytes_max: int = 8 * 1024 * MEBIBYTE
    """Bytes of one download."""
    upload_bytes_max: int = 8 * 1024 * MEBIBYTE
    """Bytes of one upload."""
    bind_source_dirs: tuple[str, ...] = ()
    """Directories of the host below which anything may be mounted into containers; none but root should get there."""
    allow_privileged: bool = False
    """Whether an LRP may be `privileged`: root in its containers is root of the host. Needs a runtime without known
    holes."""
    runtime_path: str = "runc"
    """OCI runtime: a path, or a name to be found in PATH."""
    apparmor_profile: str = ""
    """AppArmor profile of all containers, which must be loaded. Empty is none; without AppArmor it is a warning."""
    conmon_path: str = "conmon"
    """conmon: a path, or a name to be found in PATH."""
    placement_tags: tuple[str, ...] = ()
    """Only workloads that ask for all of these come here."""
    optional_placement_tags: tuple[str, ...] = ()
    """Workloads may ask for these."""
    report_interval_s: float = 5.0
    """Seconds between two reports to the BBS when nothing changes, less or more a fifth."""
    graceful_stop_s: float = 10.0
    """Seconds between SIGTERM and SIGKILL when an instance is stopped."""
    default_start_timeout_s: float = 60.0
    """Seconds to the first healthy check for an LRP whose `start_timeout_ms` is 0."""
    sandboxes_ready: int = 64
    """Namespaces with their network that are made ahead of need: as many as containers come at once; 0: made when a
    container is."""
    settle_ms: int = 50
    """Milliseconds of processor time after which a process without a check counts as RUNNING, though never idle."""
    unhealthy_interval_s: float = 1.0
    """Longest pause in seconds between two checks before the first healthy one; it grows from 0.05 s. Diego: 2 s."""
    healthy_interval_s: float = 30.0
    """Seconds between two checks of a healthy instance whose check names no interval."""
    log_bytes_max: int = 16 * MEBIBYTE
    """Bytes of a container's log before it starts afresh."""
    in_flight_max: int = 256
    """Requests worked on at once; more are answered 503 with Retry-After before anything is done."""
    body_bytes_max: int = 4 * MEBIBYTE
    """Bytes of a request's body."""
    request_budget_ms: int = 60_000
    """Milliseconds for a request that names no budget."""
    evacuate_on_stop_s: int = 0
    """Seconds that SIGTERM gives to moving instances to other cells before the process ends. 0: they run on here, and
    the next start adopts them. Give whoever sends SIGKILL more time than this."""
    stop_grace_s: float = 10.0
    """Seconds that work under way may take to finish after SIGTERM. Containers run on in any case."""
    title: str = field(default="diego-cell")
    """Name of the process in `ps`."""

    def garden(self) -> GardenConfig:
        """The same settings as garden takes them. Raises ConfigError."""
        try:
            return GardenConfig(
                cell_id=self.cell_id,
                state_dir=self.state_dir,
                image_root=self.image_root,
                host_address=self.address,
                network=self.network,
                network6=self.network6,
                port_first=self.port_first,
                port_count=self.port_count,
                id_base=self.id_base,
                id_slots=self.id_slots,
                cgroup_parent=self.cgroup_parent,
                bind_source_dirs=self.bind_source_dirs,
                allow_privileged=self.allow_privileged,
                runtime_path=self.runtime_path,
                apparmor_profile=self.apparmor_profile,
                conmon_path=self.conmon_path,
                interface_prefix=self.interface_prefix,
                nft_table=self.nft_table,
                containers_max=self.containers_max,
                sandboxes_ready=self.sandboxes_ready,
                log_bytes_max=self.log_bytes_max,
                volumes_dir=self.volumes_dir,
                volumes_store_mb=self.volumes_store_mb,
                disk_driver=self.disk_driver,
                inodes_max=self.inodes_max,
                cpu_hard_limit_millis=self.cpu_hard_limit_millis,
                deny_networks=self.deny_networks,
                image_store_bytes_max=self.image_store_bytes_max,
                layer_bytes_max=self.layer_bytes_max,
                layer_entries_max=self.layer_entries_max,
                images=self._images(),
                egress_default=self.egress_default,
                dns_servers=self.dns_servers,
                dns_search=self.dns_search,
                dns_options=self.dns_options,
                extra_hosts=self.extra_hosts,
            )
        except ValueError as refused:
            raise ConfigError(str(refused)) from refused

    def _images(self) -> ImageSettings:
        return ImageSettings(
            default_registry=self.default_registry,
            mirrors=self.registry_mirrors,
            ca_file=self.registry_ca_file,
            insecure_registries=self.insecure_registries,
            allowed=self.allowed_registries,
            deny_networks=self.deny_networks,
            proxy=self.image_proxy,
            image_dirs=self.image_dirs,
        )

    def transfers(self) -> TransferSettings:
        """What downloads and uploads may take, and where they may go. Raises ConfigError."""
        try:
            return TransferSettings(
                directory=Path(self.state_dir) / "transfers",
                hosts=self.transfer_hosts,
                deny_networks=self.deny_networks,
                ca_file=self.transfer_ca_file,
                proxy=self.transfer_proxy,
                cache_bytes_max=self.download_cache_bytes_max,
                download_bytes_max=self.download_bytes_max,
                upload_bytes_max=self.upload_bytes_max,
            )
        except ValueError as refused:
            raise ConfigError(str(refused)) from refused

    def capacity(self) -> CellCapacity:
        """What the cell has for containers; looks at the host for what is 0. Needs the directories to exist."""
        memory_mb = self.memory_mb or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MEBIBYTE
        place = self.volumes_dir or self.state_dir
        disk_mb = self.disk_mb or self.volumes_store_mb or shutil.disk_usage(place).total // MEBIBYTE
        return CellCapacity(memory_mb=memory_mb, disk_mb=disk_mb, containers=self.containers_max)

    @property
    def image_schemes(self) -> tuple[str, ...]:
        """Kinds of images that the cell can be asked for."""
        return ("docker", "oci") if self.image_dirs else ("docker",)

    @property
    def rep_state(self) -> Path:
        """Where the rep keeps what must survive it."""
        return Path(self.state_dir) / "rep"
