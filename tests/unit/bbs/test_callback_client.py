"""Requests to addresses that clients named: whatever they named, it is a delivery that did not come about."""

from collections.abc import AsyncIterator

import pytest

from bbs.callback_client import DENIED, CallbackClient, Delivery


@pytest.fixture
async def client() -> AsyncIterator[CallbackClient]:
    made = CallbackClient(DENIED, 3.0, 2)
    await made.start()
    yield made
    await made.stop()


@pytest.mark.parametrize("host", ["a..b", ".", "a" * 64 + ".example", "[::1", "x:99999"])
async def test_a_name_that_nobody_can_have(client: CallbackClient, host: str) -> None:
    assert await client.post(f"http://{host}/", b"{}") == Delivery(reason="no valid URL")


@pytest.mark.parametrize(
    "host", ["127.0.0.1:1", "localhost:1", "0x7f.1:1", "[::ffff:127.0.0.1]:1", "[64:ff9b::7f00:1]:1"]
)
async def test_an_address_that_only_we_reach(client: CallbackClient, host: str) -> None:
    assert await client.post(f"http://{host}/", b"{}") == Delivery(denied=True, reason="address denied")


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "168.63.129.16", "192.0.0.192", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "fd00:ec2::254"],
)
def test_metadata_services_are_denied(client: CallbackClient, address: str) -> None:
    assert client.is_denied(address)


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.1.1", "8.8.8.8", "2001:4860:4860::8888", "64:ff9b::a00:1"])
def test_a_cloud_controller_may_be_anywhere_else(client: CallbackClient, address: str) -> None:
    assert not client.is_denied(address)
