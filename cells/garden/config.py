"""What garden must be told about its host. Read once, never changed. Two gardens on one host differ in every name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from attrs import Attribute, field, frozen

from cells.garden.quota.probe import ANY, DRIVERS
from cells.outbound import reach
from diego_py.image_reference import StoredImage, host_of, parse
from diego_py.metadata_services import PUBLIC_NETWORKS

PRIVATE_NETWORKS = (
    *PUBLIC_NETWORKS,
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "224.0.0.0/3",
    "::/128",
    "::1/128",
    "::ffff:0:0/96",
    "64:ff9b:1::/48",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
)
"""Private, carrier, loopback, link-local, multicast and reserved networks. With them where clouds have their metadata
services: link-local, and of the public range."""

OPEN, CLOSED = "open", "closed"
STORE_MB_MIN = 256
"""A smaller btrfs needs nearly all of it for itself."""
PREFIX_6_MAX = 104
"""Room for as many containers as any IPv4 network has."""

INTERFACE_PREFIX_MAX = 8
"""The kernel gives an interface name 15 characters; we need room for the number of the address."""


def _prefix(_: object, __: object, value: str) -> None:
    # A digit at its end would make links of another cell look like ours: d1 and 05, d10 and 5.
    if not re.fullmatch(r"[a-z]([a-z0-9]{0,6}[a-z])?", value):
        told = f"up to {INTERFACE_PREFIX_MAX} lower-case letters and digits, a letter first and last"
        raise ValueError(f"interface_prefix {value!r}: {told}")


def _table(_: object, __: object, value: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", value):
        raise ValueError(f"nft_table {value!r}: up to 32 lower-case letters, digits and underscores")


def _parent(_: object, __: object, value: str) -> None:
    if not re.fullmatch(r"/?[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", value) or ".." in value.split("/"):
        raise ValueError(f"cgroup_parent {value!r}: a path of plain names")


def _store_size(_: object, __: object, value: int) -> None:
    if 0 != value < STORE_MB_MIN:
        raise ValueError(f"volumes_store_mb {value}: 0, or at least {STORE_MB_MIN}")


def _driver(_: object, __: object, value: str) -> None:
    if value not in (ANY, *DRIVERS):
        raise ValueError(f"disk_driver {value!r}: one of {', '.join((ANY, *DRIVERS))}")


def _egress_default(_: object, __: object, value: str) -> None:
    if value not in (OPEN, CLOSED):
        raise ValueError(f"egress_default {value!r}: {OPEN} or {CLOSED}")


def _not_negative(_: object, attribute: Attribute[int], value: int) -> None:
    if value < 0:
        raise ValueError(f"{attribute.name} {value}: 0 or more")


def _cell_id(_: object, __: object, value: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", value):
        raise ValueError(f"cell_id {value!r}: letters, digits and . _ -, for it names a directory")


def _network(_: object, __: object, value: str) -> None:
    IPv4Network(value)


def _network6(_: object, attribute: Attribute[str], value: str) -> None:
    if value and IPv6Network(value).prefixlen > PREFIX_6_MAX:
        raise ValueError(f"{attribute.name} {value!r}: /{PREFIX_6_MAX} or wider")


def _networks(_: object, __: object, value: tuple[str, ...]) -> None:
    for network in value:
        ip_network(network)


def _addresses(_: object, __: object, value: tuple[str, ...]) -> None:
    for address in value:
        ip_address(address)


def _hosts(_: object, __: object, value: tuple[str, ...]) -> None:
    for line in value:
        address, *names = line.split()
        ip_address(address)
        if not names or "\n" in line:
            raise ValueError(f"extra_hosts {line!r}: an address and at least one name")


@frozen
class ImageSettings:
    """Where images may come from, and how patient the cell is with registries."""

    default_registry: str = ""
    """HOST[:PORT] of references that name none (`docker:///repository`). Empty: such references are refused."""
    mirrors: Mapping[str, tuple[str, ...]] = field(factory=dict)
    """HOST[:PORT] of a registry to those that are asked before it, without the credentials."""
    ca_file: str = ""
    """PEM file of certificate authorities that are trusted besides the system's."""
    insecure_registries: tuple[str, ...] = ()
    """HOST[:PORT] of registries that are spoken to over plain HTTP; loopback addresses always are."""
    allowed: tuple[str, ...] = (reach.ANY,)
    """HOST[:PORT] of registries that may be asked; HOST may be `*.DOMAIN`, and PORT `*`. Whoever is named here, or in
    another setting, may be at any address; `*` is everybody else, at public addresses."""
    deny_networks: tuple[str, ...] = ()
    """What counts as not public besides what the world agrees on."""
    proxy: str = ""
    """`http://HOST:PORT` by which everybody is reached who is not named; then it is the proxy that judges addresses."""
    image_dirs: tuple[str, ...] = ()
    """Directories in which `oci:` references may point."""
    attempts_max: int = 5
    """Connections for one layer; another one is only tried after the last one brought it forward."""
    silence_s: float = 20.0
    """How long a registry may send nothing before the connection counts as broken."""

    def __attrs_post_init__(self) -> None:
        """Raises ValueError for what names no host or is no absolute directory."""
        for network in self.deny_networks:
            ip_network(network)
        for text in self.allowed:
            reach.pattern_of(text)
        if self.proxy and not reach.is_proxy(self.proxy):
            raise ValueError(f"image_proxy {self.proxy!r}: http://HOST:PORT or https://HOST:PORT")
        mirrored = [host for pair in self.mirrors.items() for host in (pair[0], *pair[1])]
        for host in (*filter(None, [self.default_registry]), *self.insecure_registries, *mirrored):
            if host_of(host) != host:
                raise ValueError(f"registry {host!r}: HOST[:PORT] in lower case")
        for directory in self.image_dirs:
            if parse(f"oci:{directory}") != StoredImage(directory):
                raise ValueError(f"image_dirs {directory!r}: absolute paths of plain names")


    @property
    def patterns(self) -> tuple[reach.Pattern, ...]:
        """Who may be asked; those that other settings name too."""
        others = (*filter(None, [self.default_registry]), *self.insecure_registries)
        return tuple(reach.pattern_of(text) for text in (*self.allowed, *others))


@frozen
class GardenConfig:
    """Names and ranges of one cell's garden."""

    cell_id: str = field(validator=_cell_id)
    state_dir: str
    """All state on disk; every user must be able to pass through (mode 0711 all the way up)."""
    image_root: str
    """One directory a rootfs; ids in it are not shifted."""
    host_address: str
    """The host's IPv4 address at which published ports are reachable from elsewhere."""
    network: str = field(default="10.254.0.0/22", validator=_network)
    """Container addresses. The first one is the gateway."""
    network6: str = field(default="", validator=_network6)
    """IPv6 addresses of containers beside those; empty: none, and no packet of that kind gets out."""
    port_first: int = 61001
    port_count: int = 4534
    """Host ports to publish on; keep them outside net.ipv4.ip_local_port_range and apart from other cells'."""
    id_base: int = 1_048_576
    id_slots: int = 1024
    """User and group ids of the host: so many ranges of 65,536, one a container, from `id_base` up."""
    cgroup_parent: str = field(default="/diego", validator=_parent)
    runtime_path: str = "runc"
    apparmor_profile: str = ""
    """Profile that processes of containers run under, if the host has AppArmor; loaded already. Empty: none."""
    conmon_path: str = "conmon"
    nft_path: str = "nft"
    interface_prefix: str = field(default="diego", validator=_prefix)
    nft_table: str = field(default="diego", validator=_table)
    containers_max: int = 250
    log_bytes_max: int = 16 * 1024 * 1024
    """A container's log starts afresh when it has grown to this."""
    logs_kept_max: int = 1000
    """Logs of destroyed containers that are kept, the newest ones."""
    volumes_dir: str = ""
    """Where containers write, `volumes` in the state directory when empty. Its file system decides how disk is limited:
    XFS or ext4 with prjquota, btrfs with quotas, or else an ext4 image for each container that has a limit."""
    volumes_store_mb: int = field(default=0, validator=_store_size)
    """Size of a btrfs in a sparse file of the state directory, made and mounted at `volumes_dir`; 0: none."""
    disk_driver: str = field(default=ANY, validator=_driver)
    """auto, project, btrfs, loop or none: one by name is insisted on."""
    inodes_max: int = field(default=200_000, validator=_not_negative)
    """Files of a container that names no limit, where the file system counts them by project."""
    cpu_hard_limit_millis: int = field(default=0, validator=_not_negative)
    """Thousandths of a processor that a container of full weight may use, others in proportion; 0: no hard limit."""
    deny_networks: tuple[str, ...] = field(default=PRIVATE_NETWORKS, validator=_networks)
    """Where containers may not connect to, IPv4 or IPv6, unless a rule of theirs names it; the host and all containers
    of all cells are closed in any case."""
    egress_default: str = field(default=OPEN, validator=_egress_default)
    """Whether the rest of the world is open to containers without a rule that names it."""
    dns_servers: tuple[str, ...] = field(default=(), validator=_addresses)
    """Name servers of containers, which may reach them wherever they are. Empty: the host's own, but for loopback."""
    dns_search: tuple[str, ...] = ()
    """Domains that containers search. Empty: the host's, and so for the next one."""
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = field(default=(), validator=_hosts)
    """Lines for /etc/hosts of every container: an address and its names."""
    sandboxes_ready: int = 64
    """Namespaces that are made ahead of need, each with its id range and address: as many as containers come at once,
    never more than there is room for. 0: made when a container is."""
    runtime_timeout_s: float = 30.0
    """How long one call of the runtime may take before it is killed."""
    images: ImageSettings = ImageSettings()
    image_store_bytes_max: int = 32 * 1024**3
    """Disk for unpacked layers; those used least recently go first, and none that a container uses."""
    layer_bytes_max: int = 16 * 1024**3
    """Of one layer, unpacked."""
    layer_entries_max: int = 1_000_000
    allow_privileged: bool = False
    """Make privileged containers too, with a runtime that has no known holes. Root of one is root of the host."""
    bind_source_dirs: tuple[str, ...] = ()
    """Directories of the host below which everything may be mounted into containers; none: nothing may."""
    copy_bytes_max: int = 8 * 1024**3
    """Contents of all files that one copy in or out of a container may have."""
    copy_entries_max: int = 1_000_000
    """Files, directories and links of one copy."""
