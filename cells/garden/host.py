"""The parts of the host that containers are made from, and which container has which of them."""

from __future__ import annotations

import resource
from contextlib import ExitStack
from datetime import datetime
from glob import glob
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from attrs import define, evolve, field

from cells.garden import apparmor, directories, null_device, privileges, rootfs, watch_limits
from cells.garden.apparmor import Confinement
from cells.garden.box import Box
from cells.garden.bundle import Plan
from cells.garden.bundle.hostname import shorten
from cells.garden.bundle.limits import WEIGHT_MAX
from cells.garden.bundle.plan import Bind
from cells.garden.cgroups import SANDBOXES, Cgroups
from cells.garden.config import CLOSED, GardenConfig
from cells.garden.depot import Depot, Directory, Record
from cells.garden.extras import Extras
from cells.garden.network import egress, links, resolver
from cells.garden.network.events import Tell
from cells.garden.network.firewall import Firewall
from cells.garden.network.guard import Guard
from cells.garden.network.packet_log import PacketLog
from cells.garden.network.pair import Link
from cells.garden.network.resolver import Resolver
from cells.garden.network.ruleset import Policy
from cells.garden.network.watch import LinkWatch
from cells.garden.oci import Runtime
from cells.garden.pools import IDS_PER_SLOT, Addresses, Pool, port_pool
from cells.garden.processes import Process
from cells.garden.quota.store import Store
from cells.garden.quota.volumes import Volumes
from cells.garden.sandboxes.maker import Maker
from cells.garden.sandboxes.pool import Place, Sandboxes
from cells.garden.spec import ContainerSpec, Env, Limits, Network, PortForward, TmpfsMount, Usage
from cells.garden.threads import Threads, Workers
from cells.garden.users import Identity
from diego_py.errors import GardenFailed, PoolExhausted

OTHERS_MAY_PASS = 0o001
FIRST_NUMBER = 2
"""Of the addresses of a network: its own and the gateway's come before."""
MEBIBYTE = 1024 * 1024
THERMAL_COUNTERS = "/sys/devices/system/cpu/cpu*/thermal_throttle"


@define
class Host:
    """All parts, made from one configuration. Making it touches nothing; `prepare` does."""

    config: GardenConfig
    tell: Tell
    depot: Depot = field(init=False)
    runtime: Runtime = field(init=False)
    firewall: Firewall = field(init=False)
    link_watch: LinkWatch = field(factory=LinkWatch, init=False)
    addresses: Addresses = field(init=False)
    sandboxes: Sandboxes = field(init=False)
    ports: Pool = field(init=False)
    cgroups: Cgroups = field(init=False)
    extras: Extras = field(factory=Extras, init=False)
    volumes: Volumes = field(init=False)
    nofile_max: int = field(init=False)
    apparmor: Confinement = field(factory=Confinement, init=False)
    mtu: int = field(default=1500, init=False)
    counters: tuple[str, ...] = field(default=(), init=False)
    privileges: tuple[str, ...] = field(default=(), init=False)
    """Capabilities that the cell has to give to privileged containers."""
    resolver: Resolver = field(factory=Resolver, init=False)
    guard: Guard = field(init=False)
    packet_log: PacketLog = field(init=False)
    workers: Workers = field(factory=Workers, init=False)

    def __attrs_post_init__(self) -> None:
        config = self.config
        self.depot = Depot(Path(config.state_dir), config.logs_kept_max)
        self.runtime = Runtime(
            config.runtime_path,
            config.conmon_path,
            self.depot.runtime,
            config.log_bytes_max,
            config.runtime_timeout_s,
        )
        self.firewall = Firewall(_policy(config), config.nft_path)
        self.guard = Guard(self.firewall, self.tell)
        self.packet_log = PacketLog(self.tell)
        self.addresses = Addresses(IPv4Network(config.network))
        self.sandboxes = Sandboxes(
            id_base=config.id_base,
            size=config.sandboxes_ready,
            places_max=config.containers_max,
            link_of=self.link,
            link_gone=self.link_watch.gone,
            addresses=self.addresses,
            id_slots=Pool("id ranges", config.id_slots),
            maker=Maker(lambda pid: self.cgroups.hold(pid), watch_limits.of_namespace()),
        )
        self.ports = port_pool(config.port_first, config.port_count)
        self.cgroups = Cgroups.of_host(config.cgroup_parent)
        self.volumes = _volumes(config)
        self.nofile_max = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    def prepare(self) -> None:
        """Make what all containers share, but the firewall.

        Raises OSError, GardenFailed, RuntimeMissing, AppArmorProfileMissing, CgroupFailed, NetworkFailed,
        QuotaUnavailable.
        """
        self.runtime.check()
        self.apparmor = apparmor.choose(self.config.apparmor_profile)
        self.depot.prepare()
        self.runtime.seal(self.depot.programs)
        self.depot.keep_in_memory(self.config.containers_max)
        self.volumes.prepare()
        for directory in (self.depot.root, self.volumes.root):
            _check_passage(directory)
        self.cgroups.prepare()
        self.counters = tuple(sorted(glob(THERMAL_COUNTERS)))
        self.privileges = privileges.of_this_process()
        null_device.take_back()
        links.forward_packets()
        if self.config.network6:
            links.forward_packets_6()
        watch_limits.make_room(self.config.containers_max)
        self.mtu = links.mtu_towards(self.config.host_address)
        configured = Resolver(self.config.dns_servers, self.config.dns_search, self.config.dns_options)
        self.resolver = resolver.chosen(configured, has_ipv6=bool(self.config.network6))
        self.firewall.policy = evolve(self.firewall.policy, resolvers=self.resolver.servers)

    def watch(self) -> None:
        """Open what tells us of changes on the host, before the firewall is made. Raises NetworkFailed, OSError."""
        self.link_watch.open()
        self.packet_log.open(self.config.nft_table)
        self.firewall.policy = evolve(self.firewall.policy, log_group=self.packet_log.group)
        self.guard.open()

    def let_go(self) -> None:
        """Give back what only containers need, if there are none. Raises OSError."""
        self.workers.close()
        self.runtime.close()
        self.volumes.close()
        self.depot.close()

    async def unwatch(self) -> None:
        self.link_watch.close()
        await self.guard.close()
        self.packet_log.close()

    def check(self, spec: ContainerSpec) -> None:
        """Whether this host can do what is asked, before anything is begun.

        Raises InvalidSpec, QuotaUnavailable, PrivilegedRefused.
        """
        if spec.privileged:
            refused = privileges.refusal(self.config.allow_privileged, self.runtime.version)
            if refused is not None:
                raise refused
        egress.check(spec.egress)
        self.volumes.check(spec.limits)

    def allocate(self, spec: ContainerSpec, now: datetime) -> Box:
        """Take all numbers a container needs, or none. Raises PoolExhausted."""
        place = self.sandboxes.reserve(spec.privileged)
        ports: list[PortForward] = []
        try:
            for port in spec.ports:
                ports.append(PortForward(port, self.config.port_first + self.ports.take()))
        except PoolExhausted:
            self._give_back(place, tuple(ports))
            raise
        return self.box(self.record(spec, now, place, tuple(ports)))

    def record(self, spec: ContainerSpec, now: datetime, place: Place, ports: tuple[PortForward, ...]) -> Record:
        """The first record of a container."""
        return Record(
            handle=spec.handle,
            phase="creating",
            id_slot=place.id_slot,
            address_number=place.address_number,
            ports=ports,
            limits=self._limits(spec.limits),
            properties=dict(spec.properties),
            created_at=now.isoformat(),
            rootfs=spec.rootfs,
            stdin=spec.stdin,
            volume=str(self.volumes.path(spec.handle)),
            egress=spec.egress,
            privileged=spec.privileged,
            sandbox_of=spec.sandbox_of,
            log_source=spec.log_source,
            silent=spec.silent,
            idle=spec.idle,
            lingers=spec.lingers,
        )

    def reclaim(self, record: Record) -> None:
        """Mark what an adopted container has as taken. Raises ValueError when the configuration says otherwise now."""
        self.sandboxes.take_exactly(Place(record.id_slot, record.address_number))
        for port in record.ports:
            self.ports.take_exactly(port.host_port - self.config.port_first)

    def release(self, record: Record) -> None:
        """Give back all numbers; the container is gone. A sidecar has none of its own."""
        if record.sandbox_of is None:
            self.extras.gone_from(Process(record.holder_pid, record.holder_started))
            self._give_back(Place(record.id_slot, record.address_number), record.ports)

    def _give_back(self, place: Place, ports: tuple[PortForward, ...]) -> None:
        self.sandboxes.release(place)
        for port in ports:
            self.ports.give_back(port.host_port - self.config.port_first)

    def box(self, record: Record, main: Box | None = None) -> Box:
        address = self.addresses.address(record.address_number)
        return Box(
            record=record,
            directory=self.depot.directory(record.handle, record.volume),
            network=Network(address, self.config.host_address, record.ports, self._address6(record.address_number)),
            interface=self.link(record.address_number).name,
            threads=Threads(self.workers),
            main=main,
        )

    def enter_sandbox(self, box: Box) -> bool:
        """Let the container into its sandbox if that is there already, which it says."""
        if box.main is None:
            holder = None if box.record.privileged else self.sandboxes.enter(box.place)
            if holder is None:
                return False
            self._is_in(box, holder)
        return True

    async def have_sandbox(self, box: Box) -> None:
        """Let it in, made now if it is not there. Must not be cancelled. Raises SandboxFailed, NetworkFailed."""
        self._is_in(box, await self.sandboxes.have(box.place, box.record.privileged))

    def _is_in(self, box: Box, holder: Process) -> None:
        box.has_holder(holder)
        self.extras.live_in(holder)

    async def close_sandboxes(self) -> None:
        """End those that no container has, and whatever makes them."""
        await self.sandboxes.close()
        self.cgroups.remove_empty(SANDBOXES)

    def _address6(self, number: int) -> str | None:
        network = self.config.network6
        return str(IPv6Network(network)[number + FIRST_NUMBER]) if network else None

    def make_volume(self, box: Box) -> None:
        """Make the place for all that the container writes. Raises OSError, VolumeFailed."""
        number = self._own_ids(box) + box.record.part
        self.volumes.make(box.directory.volume, box.record.limits, number, box.record.privileged)
        self.depot.furnish(box.directory)

    def thaw(self, handle: str, directory: Directory) -> None:
        """Let go on what somebody froze that is the container's alone: frozen processes and writers do not die."""
        self.cgroups.thaw(handle)
        self.volumes.thaw(directory.volume)

    def remove_parts(self, handle: str, directory: Directory) -> None:
        """Take away what the kernel, and a runtime that need not be asked, have of a container without processes.

        All that can be, also when a part is refused. Blocks. Idempotent.

        Raises OSError, CgroupFailed, MountFailed, VolumeFailed.
        """
        with ExitStack() as last_first:
            # File systems come last: what waits for those that do not answer has nothing else left to do.
            last_first.callback(self._remove_root, directory)
            last_first.callback(self.cgroups.remove, handle)
            last_first.callback(self.runtime.forget, handle)

    def _remove_root(self, directory: Directory) -> None:
        """Take the container's root away with all that it wrote. Idempotent. Raises MountFailed, VolumeFailed."""
        self.volumes.thaw(directory.volume)
        rootfs.unmount(directory)
        self.volumes.remove(directory.volume)

    def usage(self, box: Box) -> Usage:
        """What the container uses now. Reads some files of the kernel."""
        figures = self.cgroups.usage(box.handle)
        return Usage(
            memory_bytes=self.cgroups.memory_bytes(box.handle),
            memory_limit_bytes=figures.get("memory_limit_bytes"),
            cpu_s=self.cgroups.worked_s(box.handle),
            pids=figures.get("pids"),
            pids_limit=figures.get("pids_limit"),
            disk=self.volumes.usage(box.directory.volume),
        )

    def _limits(self, asked: Limits) -> Limits:
        """What was asked, and the cell's own limit of the processor where none was."""
        whole = self.config.cpu_hard_limit_millis
        if asked.cpu_millis is not None or whole == 0:
            return asked
        weight = WEIGHT_MAX if asked.cpu_weight is None else asked.cpu_weight
        return evolve(asked, cpu_millis=max(1, whole * weight // WEIGHT_MAX))

    def first_id(self, box: Box) -> int:
        """The host's id that is this container's root."""
        return 0 if box.record.privileged else self._own_ids(box)

    def _own_ids(self, box: Box) -> int:
        """The first of the host's ids that no other container has, also when this one makes no use of them."""
        return self.config.id_base + box.record.id_slot * IDS_PER_SLOT

    def privileges_of(self, record: Record) -> tuple[str, ...] | None:
        """Capabilities of its root; None: those of every container."""
        return self.privileges if record.privileged else None

    def link(self, address_number: int) -> Link:
        """The link of the sandbox with this address."""
        name = f"{self.config.interface_prefix}{address_number}"
        gateway6 = str(IPv6Network(self.config.network6)[1]) if self.config.network6 else ""
        address, address6 = self.addresses.address(address_number), self._address6(address_number)
        return Link(name, address, self.addresses.gateway, self.mtu, address6, gateway6)

    def write_etc(self, box: Box, hostname: str) -> None:
        """Its /etc/hosts (its own name, and those that all containers know) and the like. A sidecar has another's."""
        if box.main is None:
            own = [address for address in (box.network.address, box.network.address6) if address is not None]
            hosts = [*(f"{address} {hostname}" for address in own), *self.config.extra_hosts]
            rootfs.write_etc(box.directory, self.first_id(box), hostname, hosts, self.resolver.text())

    def plan(self, spec: ContainerSpec, box: Box, identity: Identity, binds: tuple[Bind, ...] = ()) -> Plan:
        """Every choice the bundle needs, made. The root is mounted."""
        return Plan(
            path=spec.path,
            args=spec.args,
            env=(*spec.env, *spec.own_env, *network_environment(spec, box)),
            cwd=directories.chosen(str(box.directory.rootfs), spec.cwd, identity),
            identity=identity,
            hostname=shorten(spec.hostname or spec.handle) if box.main is None else "",
            rootfs=str(box.directory.rootfs),
            etc=str(box.etc),
            first_id=self.first_id(box),
            namespaces=box.namespaces,
            cgroup_path=self.cgroups.path(box.handle),
            counters=self.counters,
            limits=box.record.limits,
            nofile_max=self.nofile_max,
            mounts=_in_order(spec, binds),
            apparmor_profile=self.apparmor.profile,
            privileges=self.privileges_of(box.record),
            pause=str(self.depot.pause) if spec.idle else "",
        )

    def makes_privileged(self) -> bool:
        """Whether privileged containers are made here."""
        return privileges.refusal(self.config.allow_privileged, self.runtime.version) is None

    def warnings(self) -> list[str]:
        """What makes this host less safe than it should be."""
        return [warning for warning in (self.runtime.version.shortcoming(), self.apparmor.warning) if warning]


def _volumes(config: GardenConfig) -> Volumes:
    directory = Path(config.volumes_dir or Path(config.state_dir, "volumes"))
    store = None
    if config.volumes_store_mb:
        store = Store(Path(config.state_dir, "volumes.btrfs"), directory, config.volumes_store_mb * MEBIBYTE)
    return Volumes(directory, config.cell_id, store, config.disk_driver, config.inodes_max)


def _check_passage(directory: Path) -> None:
    """A container's root is nobody on the host and must get to its own root directory. Raises GardenFailed."""
    for path in (directory.resolve(), *directory.resolve().parents):
        if not path.stat().st_mode & OTHERS_MAY_PASS:
            raise GardenFailed(
                f"pass through {path} as a container's root: it needs mode 0711", evidence={"path": str(path)}
            )


def _in_order(spec: ContainerSpec, binds: tuple[Bind, ...]) -> tuple[Bind | TmpfsMount, ...]:
    prepared = iter(binds)
    return tuple(mount if isinstance(mount, TmpfsMount) else next(prepared) for mount in spec.mounts)


def network_environment(spec: ContainerSpec, box: Box) -> Env:
    """What every process of the container is told of its addresses."""
    return spec.network_env(box.network) if spec.network_env is not None else ()


def _policy(config: GardenConfig) -> Policy:
    return Policy(
        table=config.nft_table,
        prefix=config.interface_prefix,
        networks=(IPv4Network(config.network), *([IPv6Network(config.network6)] if config.network6 else [])),
        host_address=config.host_address,
        deny_networks=config.deny_networks,
        closed=config.egress_default == CLOSED,
    )
