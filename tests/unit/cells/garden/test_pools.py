"""Numbers are handed out once, in a round, and come back."""

from __future__ import annotations

import socket
from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cells.garden.pools import Addresses, Pool, port_is_free
from diego_py.errors import PoolExhausted


def test_all_then_exhausted_then_again() -> None:
    pool = Pool("things", 3)
    assert [pool.take() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(PoolExhausted) as failed:
        pool.take()
    assert failed.value.evidence == {"pool": "things", "size": 3, "taken": 3}
    pool.give_back(1)
    assert pool.take() == 1


def test_a_number_rests_before_it_is_used_again() -> None:
    pool = Pool("things", 3)
    pool.give_back(pool.take())
    assert pool.take() == 1


def test_the_lowest_where_it_does_not_matter() -> None:
    pool = Pool("things", 3, goes_round=False)
    assert [pool.take(), pool.take()] == [0, 1]
    pool.give_back(0)
    assert pool.take() == 0


def test_unusable_ones_are_passed_over() -> None:
    assert Pool("things", 4, usable=lambda number: number == 2).take() == 2


@pytest.mark.parametrize("number", [-1, 3, 1])
def test_take_exactly_refuses_strangers_and_doubles(number: int) -> None:
    pool = Pool("things", 3)
    pool.take_exactly(1)
    with pytest.raises(ValueError, match="things"):
        pool.take_exactly(number)


@given(st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=60))
def test_never_twice_at_the_same_time(steps: list[int | None]) -> None:
    pool, held = Pool("things", 10), set()
    for step in steps:
        if step is not None:
            pool.give_back(step)
            held.discard(step)
        elif len(held) < 10:
            number = pool.take()
            assert number not in held
            held.add(number)
        assert pool.taken == len(held)


def test_addresses_leave_out_network_gateway_and_broadcast() -> None:
    addresses = Addresses(IPv4Network("10.1.0.0/29"))
    assert addresses.gateway == "10.1.0.1"
    taken = [addresses.address(addresses.take()) for _ in range(5)]
    assert taken == ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]
    with pytest.raises(PoolExhausted):
        addresses.take()


def test_port_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not port_is_free(port)
    assert port_is_free(port)
