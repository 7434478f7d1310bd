"""Chains, rules and verdicts of nft as netlink requests: how a container's egress rules get into the cell's table.

The same rules stand as text in `ruleset`, for the table as a whole; a test holds the two against each other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import count

from attrs import define, field

from cells.garden.network import netlink
from cells.garden.network.egress import ADDRESS_BITS, Family, Match, Range
from cells.garden.network.netlink import Message, attribute, nest

NFTABLES = 10
FAMILY_INET = 1
NEW_CHAIN, DELETE_CHAIN, NEW_RULE, DELETE_RULE, NEW_SET, NEW_ELEMENT, DELETE_ELEMENT = (
    NFTABLES << 8 | kind for kind in (3, 5, 6, 8, 9, 12, 14)
)
APPEND = 0x800
CHAIN_TABLE, CHAIN_NAME = 1, 3
RULE_TABLE, RULE_CHAIN, RULE_EXPRESSIONS = 1, 2, 4
SET_TABLE, SET_NAME, SET_FLAGS, SET_KEY_TYPE, SET_KEY_LENGTH, SET_ID = 1, 2, 3, 4, 5, 10
SET_ANONYMOUS, SET_CONSTANT, SET_INTERVAL = 1, 2, 4
LIST_TABLE, LIST_SET, LIST_ELEMENTS, LIST_SET_ID = 1, 2, 3, 4
ELEMENT, KEY, DATA, ELEMENT_FLAGS, INTERVAL_END = 1, 1, 2, 3, 1
VALUE, VERDICT, VERDICT_CODE, VERDICT_CHAIN = 1, 2, 1, 2
ACCEPT, JUMP, GOTO = 1, -3, -4
EXPRESSION_NAME, EXPRESSION_DATA = 1, 2
REGISTER_VERDICT, REGISTER = 0, 1
EQUAL, AT_MOST, AT_LEAST = 0, 3, 5
META_FAMILY, META_PROTOCOL = 15, 16
CT_PORT, CT_ADDRESS = 12, {4: 20, 6: 22}
DIRECTION_ORIGINAL = b"\0"
TRANSPORT_HEADER = 2
NFPROTO = {4: b"\2", 6: b"\x0a"}
TYPE_ADDRESS, TYPE_PORT = {4: 7, 6: 8}, 13
"""The kernel's own numbers: linux/netfilter/nf_tables.h. The types of keys are those of nft, which lists them."""

LOG_PER_SECOND, LOG_BURST = 10, 20
"""How many packets of a container are told of, however many there are: nobody floods the cell's log."""
LOG_BYTES = 80
"""Of each packet; enough for the addresses and ports of any."""

ANY_SET = "__set%d"
"""The kernel finds a number."""


@define
class Rules:
    """Requests that fill one container's chains. They count on being part of one transaction."""

    table: str
    _numbers: Iterator[int] = field(factory=lambda: count(1), init=False)
    """Of the sets without a name, within the transaction."""

    def allow(self, chain: str, match: Match, log_chain: str) -> Iterator[Message]:
        """Append a rule that lets through what matches, by way of `log_chain` when it is to be told of."""
        expressions = [_meta(META_FAMILY), _compare(EQUAL, NFPROTO[match.family])]
        if match.addresses:
            expressions.append(_ct(CT_ADDRESS[match.family]))
            size = ADDRESS_BITS[match.family] // 8
            yield from self._one_of(match.addresses, size, TYPE_ADDRESS[match.family], expressions)
        if match.protocol is not None:
            expressions += [_meta(META_PROTOCOL), _compare(EQUAL, bytes([match.protocol]))]
        if match.ports:
            expressions.append(_ct(CT_PORT))
            yield from self._one_of(match.ports, 2, TYPE_PORT, expressions)
        for offset, wanted in enumerate((match.icmp_type, match.icmp_code)):
            if wanted is not None:
                expressions += [_transport(offset, 1), _compare(EQUAL, bytes([wanted]))]
        expressions.append(_verdict(GOTO, log_chain) if match.log else _verdict(ACCEPT))
        yield self.rule(chain, expressions)

    def tell(self, chain: str, prefix: str, group: int) -> list[Message]:
        """Fill a log chain: so many packets a second are told of, all are let through."""
        limit = _expression(
            "limit",
            attribute(1, struct.pack(">Q", LOG_PER_SECOND)),
            attribute(2, struct.pack(">Q", 1)),
            attribute(3, _number(LOG_BURST)),
        )
        log = _expression(
            "log", attribute(1, struct.pack(">H", group)), attribute(2, prefix), attribute(3, _number(LOG_BYTES))
        )
        return [self.rule(chain, [limit, log]), self.rule(chain, [_verdict(ACCEPT)])]

    def rule(self, chain: str, expressions: Sequence[bytes]) -> Message:
        names = attribute(RULE_TABLE, self.table) + attribute(RULE_CHAIN, chain)
        body = names + nest(RULE_EXPRESSIONS, *(nest(1, each) for each in expressions))
        return netlink.message(NEW_RULE, HEADER + body, netlink.CREATE | APPEND)

    def _one_of(self, ranges: Sequence[Range], size: int, kind: int, expressions: list[bytes]) -> Iterator[Message]:
        """Whether what was loaded is in one of the ranges; several of them make a set."""
        if len(ranges) == 1:
            first, last = (number.to_bytes(size, "big") for number in ranges[0])
            bounds = [(EQUAL, first)] if first == last else [(AT_LEAST, first), (AT_MOST, last)]
            expressions += [_compare(how, bound) for how, bound in bounds]
            return
        number = _number(next(self._numbers))
        names = attribute(SET_TABLE, self.table) + attribute(SET_NAME, ANY_SET)
        about = (
            attribute(SET_FLAGS, _number(SET_ANONYMOUS | SET_CONSTANT | SET_INTERVAL))
            + attribute(SET_KEY_TYPE, _number(kind))
            + attribute(SET_KEY_LENGTH, _number(size))
            + attribute(SET_ID, number)
        )
        yield netlink.message(NEW_SET, HEADER + names + about, netlink.CREATE)
        elements = [each for first, last in ranges for each in _interval(first, last, size)]
        # The length of an attribute has 16 bits.
        for start in range(0, len(elements), ELEMENTS_AT_ONCE):
            part = nest(LIST_ELEMENTS, *elements[start : start + ELEMENTS_AT_ONCE])
            yield netlink.message(NEW_ELEMENT, HEADER + names + attribute(LIST_SET_ID, number) + part, netlink.CREATE)
        expressions.append(
            _expression("lookup", attribute(1, ANY_SET), attribute(2, _number(REGISTER)), attribute(4, number))
        )


ELEMENTS_AT_ONCE = 1000
HEADER = struct.pack(">BBH", FAMILY_INET, 0, 0)


def new_chain(table: str, name: str) -> Message:
    """Changes nothing when there is one."""
    return netlink.message(NEW_CHAIN, _chain(table, name), netlink.CREATE)


def delete_chain(table: str, name: str) -> list[Message]:
    """Its rules first, and with them their sets without a name."""
    rules = attribute(RULE_TABLE, table) + attribute(RULE_CHAIN, name)
    return [
        netlink.message(DELETE_RULE, HEADER + rules, 0),
        netlink.message(DELETE_CHAIN, _chain(table, name), 0),
    ]


def _chain(table: str, name: str) -> bytes:
    return HEADER + attribute(CHAIN_TABLE, table) + attribute(CHAIN_NAME, name)


def jump(chain: str) -> bytes:
    """The value of a map's element that leads to a chain."""
    return _to(JUMP, chain)


def _to(code: int, chain: str | None = None) -> bytes:
    way = attribute(VERDICT_CHAIN, chain) if chain is not None else b""
    return nest(VERDICT, attribute(VERDICT_CODE, struct.pack(">i", code)) + way)


def _interval(first: int, last: int, size: int) -> Iterator[bytes]:
    """An interval set holds where each interval begins, and after its end, unless that is the end of all numbers."""
    yield nest(ELEMENT, nest(KEY, attribute(VALUE, first.to_bytes(size, "big"))))
    if last + 1 < 256**size:
        after = nest(KEY, attribute(VALUE, (last + 1).to_bytes(size, "big")))
        yield nest(ELEMENT, after, attribute(ELEMENT_FLAGS, _number(INTERVAL_END)))


def _number(value: int) -> bytes:
    return struct.pack(">I", value)


def _expression(name: str, *attributes: bytes) -> bytes:
    return attribute(EXPRESSION_NAME, name) + nest(EXPRESSION_DATA, *attributes)


def _meta(key: int) -> bytes:
    return _expression("meta", attribute(1, _number(REGISTER)), attribute(2, _number(key)))


def _ct(key: int) -> bytes:
    """What the container asked for, before anything on its way changed the packet."""
    return _expression(
        "ct", attribute(1, _number(REGISTER)), attribute(2, _number(key)), attribute(3, DIRECTION_ORIGINAL)
    )


def _transport(offset: int, size: int) -> bytes:
    parts = (REGISTER, TRANSPORT_HEADER, offset, size)
    return _expression("payload", *(attribute(kind, _number(part)) for kind, part in enumerate(parts, 1)))


def _compare(how: int, value: bytes) -> bytes:
    return _expression(
        "cmp", attribute(1, _number(REGISTER)), attribute(2, _number(how)), nest(3, attribute(VALUE, value))
    )


def _verdict(code: int, chain: str | None = None) -> bytes:
    return _expression("immediate", attribute(1, _number(REGISTER_VERDICT)), nest(2, _to(code, chain)))


__all__ = ["Family", "Rules", "delete_chain", "jump", "new_chain"]
