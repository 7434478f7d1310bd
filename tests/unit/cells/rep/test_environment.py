"""The environment is Diego's."""

from cells.garden.spec import Network, PortForward
from cells.rep.environment import container_env, network_env
from diego_py.models.actions import EnvironmentVariable
from diego_py.secret import Secret


def variable(name: str, value: str) -> EnvironmentVariable:
    return EnvironmentVariable(name=name, value=Secret(value))


def test_precedence() -> None:
    lrp = (variable("A", "lrp"), variable("B", "lrp"), variable("CF_INSTANCE_INDEX", "mine"))
    env = dict(container_env("i-1", 3, lrp))  # type: ignore[arg-type]
    assert env == {
        "INSTANCE_GUID": "i-1",
        "INSTANCE_INDEX": "3",
        "CF_INSTANCE_GUID": "i-1",
        "CF_INSTANCE_INDEX": "mine",
        "A": "lrp",
        "B": "lrp",
    }


def test_network() -> None:
    env = dict(network_env(Network("10.254.0.2", "192.0.2.1", (PortForward(8080, 61001), PortForward(9000, 61002)))))
    assert env == {
        "CF_INSTANCE_IP": "192.0.2.1",
        "CF_INSTANCE_INTERNAL_IP": "10.254.0.2",
        "CF_INSTANCE_PORT": "61001",
        "CF_INSTANCE_ADDR": "192.0.2.1:61001",
        "CF_INSTANCE_PORTS": '[{"external":61001,"internal":8080},{"external":61002,"internal":9000}]',
    }


def test_network_with_ipv6() -> None:
    env = dict(network_env(Network("10.254.0.2", "192.0.2.1", address6="fd00::2")))
    assert env["CF_INSTANCE_INTERNAL_IPV6"] == "fd00::2"


def test_network_without_ports() -> None:
    env = dict(network_env(Network("10.254.0.2", "192.0.2.1")))
    assert (env["CF_INSTANCE_PORT"], env["CF_INSTANCE_ADDR"], env["CF_INSTANCE_PORTS"]) == ("", "", "[]")


def test_network_without_host_ports() -> None:
    env = dict(network_env(Network("10.254.0.2", "192.0.2.1", (PortForward(8080, 0),))))
    assert env["CF_INSTANCE_PORTS"] == '[{"internal":8080}]'
    assert "CF_INSTANCE_PORT" not in env
