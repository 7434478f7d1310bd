"""The parts of the host that containers are made from, and which container has which of them."""

from __future__ import annotations

import resource
from datetime import datetime
from ipaddress import IPv4Network
from pathlib import Path

from attrs import define, field

from cells.garden import apparmor
from cells.garden.apparmor import Confinement
from cells.garden.box import Box
from cells.garden.bundle import Plan
from cells.garden.bundle.hostname import shorten
from cells.garden.cgroups import Cgroups
from cells.garden.config import GardenConfig
from cells.garden.depot import Depot, Record
from cells.garden.extras import Extras
from cells.garden.network import links
from cells.garden.network.firewall import Firewall
from cells.garden.network.links import Link
from cells.garden.network.watch import LinkWatch
from cells.garden.oci import Runtime
from cells.garden.pools import IDS_PER_SLOT, Addresses, Pool, port_pool
from cells.garden.spec import ContainerSpec, Network, PortForward
from cells.garden.userns import UserNamespaces
from cells.garden.users import Identity, is_directory
from diego_py.errors import GardenFailed, PoolExhausted

OTHERS_MAY_PASS = 0o001


@define
class Host:
    """All parts, made from one configuration. Making it touches nothing; `prepare` does."""

    config: GardenConfig
    depot: Depot = field(init=False)
    runtime: Runtime = field(init=False)
    firewall: Firewall = field(init=False)
    userns: UserNamespaces = field(init=False)
    link_watch: LinkWatch = field(factory=LinkWatch, init=False)
    addresses: Addresses = field(init=False)
    id_slots: Pool = field(init=False)
    ports: Pool = field(init=False)
    cgroups: Cgroups = field(init=False)
    extras: Extras = field(factory=Extras, init=False)
    nofile_max: int = field(init=False)
    apparmor: Confinement = field(factory=Confinement, init=False)
    mtu: int = field(default=1500, init=False)

    def __attrs_post_init__(self) -> None:
        config = self.config
        self.depot = Depot(Path(config.state_dir))
        self.runtime = Runtime(
            config.runtime_path,
            config.conmon_path,
            self.depot.runtime,
            config.log_bytes_max,
            config.runtime_timeout_s,
        )
        self.firewall = Firewall(
            config.nft_table, config.nft_path, config.interface_prefix, config.network, config.deny_networks
        )
        self.userns = UserNamespaces(config.id_base)
        self.addresses = Addresses(IPv4Network(config.network))
        # The lowest: its user namespace is likely to be there already, and to make one takes milliseconds.
        self.id_slots = Pool("id ranges", config.id_slots, goes_round=False)
        self.ports = port_pool(config.port_first, config.port_count)
        self.cgroups = Cgroups.of_host(config.cgroup_parent)
        self.nofile_max = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    def prepare(self) -> None:
        """Make what all containers share, but the firewall.

        Raises OSError, GardenFailed, RuntimeMissing, AppArmorProfileMissing, CgroupFailed, NetworkFailed.
        """
        self.runtime.check()
        self.apparmor = apparmor.choose(self.config.apparmor_profile)
        self.depot.prepare()
        self._check_passage()
        self.cgroups.prepare()
        links.forward_packets()
        self.mtu = links.mtu_towards(self.config.host_address)

    def _check_passage(self) -> None:
        """A container's root is nobody on the host and must get to its own root directory. Raises GardenFailed."""
        for path in (self.depot.root.resolve(), *self.depot.root.resolve().parents):
            if not path.stat().st_mode & OTHERS_MAY_PASS:
                raise GardenFailed(
                    f"pass through {path} as a container's root: it needs mode 0711", evidence={"path": str(path)}
                )

    def allocate(self, spec: ContainerSpec, now: datetime) -> Box:
        """Take all numbers a container needs, or none. Raises PoolExhausted."""
        slot = self.id_slots.take()
        number = None
        ports: list[PortForward] = []
        try:
            number = self.addresses.take()
            for port in spec.ports:
                ports.append(PortForward(port, self.config.port_first + self.ports.take()))
        except PoolExhausted:
            self._give_back(slot, number, tuple(ports))
            raise
        record = Record(
            handle=spec.handle,
            phase="creating",
            id_slot=slot,
            address_number=number,
            ports=tuple(ports),
            limits=spec.limits,
            properties=dict(spec.properties),
            created_at=now.isoformat(),
            rootfs=spec.rootfs,
        )
        return self.box(record)

    def reclaim(self, record: Record) -> None:
        """Mark what an adopted container has as taken. Raises ValueError when the configuration says otherwise now."""
        self.id_slots.take_exactly(record.id_slot)
        self.addresses.take_exactly(record.address_number)
        for port in record.ports:
            self.ports.take_exactly(port.host_port - self.config.port_first)

    def release(self, record: Record) -> None:
        """Give back all numbers; the container is gone."""
        self._give_back(record.id_slot, record.address_number, record.ports)

    def _give_back(self, slot: int, number: int | None, ports: tuple[PortForward, ...]) -> None:
        self.id_slots.give_back(slot)
        if number is not None:
            self.addresses.give_back(number)
        for port in ports:
            self.ports.give_back(port.host_port - self.config.port_first)

    def box(self, record: Record) -> Box:
        address = self.addresses.address(record.address_number)
        return Box(
            record=record,
            directory=self.depot.directory(record.handle),
            network=Network(address, self.config.host_address, record.ports),
            interface=f"{self.config.interface_prefix}{record.address_number}",
        )

    def first_id(self, box: Box) -> int:
        """The host's id that is this container's root."""
        return self.config.id_base + box.record.id_slot * IDS_PER_SLOT

    def link(self, box: Box) -> Link:
        return Link(box.interface, box.network.address, self.addresses.gateway, self.mtu)

    def plan(self, spec: ContainerSpec, box: Box, identity: Identity) -> Plan:
        """Every choice the bundle needs, made. The root is mounted."""
        extra = spec.network_env(box.network) if spec.network_env is not None else ()
        return Plan(
            path=spec.path,
            args=spec.args,
            env=(*spec.env, *extra),
            cwd=working_directory(str(box.directory.rootfs), spec.cwd, identity),
            identity=identity,
            hostname=shorten(spec.hostname or spec.handle),
            rootfs=str(box.directory.rootfs),
            etc=str(box.directory.etc),
            first_id=self.first_id(box),
            cgroup_path=self.cgroups.path(box.handle),
            limits=spec.limits,
            nofile_max=self.nofile_max,
            apparmor_profile=self.apparmor.profile,
        )

    def warnings(self) -> list[str]:
        """What makes this host less safe than it should be."""
        return [warning for warning in (self.runtime.version.shortcoming(), self.apparmor.warning) if warning]


def working_directory(root: str, given: str | None, identity: Identity) -> str:
    """Where a process starts: as given, else the user's home when the image has it, else the root directory."""
    if given:
        return given
    return identity.home if is_directory(root, identity.home) else "/"
