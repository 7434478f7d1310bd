"""How the rows of a table become the items of a list: the statements, and the JSON of records. Pure.

What is selected follows from the noun that the items are, so its fields are described once, in the model. Statements
are texts without values, one for each set of filters, so that each can have the plan that fits it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from hashlib import blake2b
from typing import Any, Final

import asyncpg
import msgspec
from attrs import frozen

from bbs.store.failures import FailureRecord
from bbs.store.twins import ENCODER, decoder_of, row_of
from diego_py import wire
from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.desired_lrp import DesiredLRP
from diego_py.models.shapes import Field, Maybe, Noun, Shape, Table, fields_of
from diego_py.models.task import Task
from diego_py.models.workload import ModificationTag

MASK: Final = 2**64 - 1
Change = tuple[int, int, Callable[[Any], Any]]
"""Position of a field in the record, how many columns it has, and what makes a value of them."""


@frozen
class Listing:
    """One list of the API."""

    op: str
    noun: type[Any]
    table: str
    key: tuple[str, ...]
    """Columns that name a row, in which order the list is."""
    filters: tuple[str, ...]
    """Columns that may have to have a value."""
    together: int
    """Rows that are read and written at once. It bounds how long other requests wait, and how much memory it takes."""
    descending: bool = False
    without: frozenset[str] = frozenset()
    """Fields that a list leaves null: only one item by itself tells them."""
    texts_in_bytes: frozenset[str] = frozenset()
    """Fields whose column is UTF-8, because it may hold a NUL."""


ACTUAL_LRPS: Final = Listing(
    "list_actual_lrps",
    ActualLRP,
    "actual_lrps",
    key=("process_guid", "index", "presence"),
    filters=("process_guid", "domain", "cell_id", "state"),
    together=250,
    without=frozenset({"failure"}),
)
DESIRED_LRPS: Final = Listing(
    "list_desired_lrps", DesiredLRP, "desired_lrps", key=("process_guid",), filters=("domain",), together=50
)
TASKS: Final = Listing(
    "list_tasks",
    Task,
    "tasks",
    key=("task_guid",),
    filters=("domain", "cell_id", "state"),
    together=50,
    without=frozenset({"failure"}),
    texts_in_bytes=frozenset({"result"}),
)
FAILURES: Final = Listing(
    "list_failures",
    FailureRecord,
    "failures",
    key=("created_at", "id"),
    filters=("process_guid", "task_guid", "domain", "code"),
    together=50,
    descending=True,
)


# Statements


def _wanted(listing: Listing, given: Sequence[str], behind: bool, limited: bool) -> str:
    """From where on: the end of a statement. Parameters are the filters, then the key, then the limit."""
    conditions = [f"{name} = ${number}" for number, name in enumerate(given, 1)]
    if behind:
        parameters = ", ".join(f"${len(given) + number}" for number in range(1, len(listing.key) + 1))
        conditions.append(f"({', '.join(listing.key)}) {'<' if listing.descending else '>'} ({parameters})")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return where + (_order(listing) + f" LIMIT ${len(given) + behind * len(listing.key) + 1}" if limited else "")


def _order(listing: Listing) -> str:
    return " ORDER BY " + ", ".join(f"{name} DESC" if listing.descending else name for name in listing.key)


@cache
def page_statement(listing: Listing, given: tuple[str, ...], behind: bool) -> str:
    """Selects the rows of a page, each with the hash of all that it holds as its last column."""
    hashed = f"hash_record_extended({listing.table}, (SELECT seed FROM list_tags)) AS content"
    return f"SELECT {_columns(listing)}, {hashed} FROM {listing.table}" + _wanted(listing, given, behind, True)


@cache
def stream_statement(listing: Listing, given: tuple[str, ...], behind: bool) -> str:
    """Selects all rows."""
    return f"SELECT {_columns(listing)} FROM {listing.table}{_wanted(listing, given, behind, False)}{_order(listing)}"


@cache
def tag_statement(listing: Listing, given: tuple[str, ...], behind: bool, limited: bool) -> str:
    """Selects how many rows there are, and one hash of all of them, whatever their order."""
    rows = f"SELECT * FROM {listing.table}{_wanted(listing, given, behind, limited)}"
    hashed = "bit_xor(hash_record_extended(page, (SELECT seed FROM list_tags)))"
    return f"SELECT count(*), COALESCE({hashed}, 0) FROM ({rows}) AS page"


def _columns(listing: Listing) -> str:
    """Those of the noun, and behind them what else the key has."""
    fields = fields_of(listing.noun)
    of_noun = [name for field in fields for name in _columns_of(listing, field)]
    return ", ".join((*of_noun, *(name for name in listing.key if name not in of_noun)))


def _columns_of(listing: Listing, field: Field) -> tuple[str, ...]:
    if field.key in listing.without:
        return (f"NULL AS {field.key}",)
    return ("tag_epoch", "tag_index") if field.shape == Noun(ModificationTag) else (field.key,)


# Records


@cache
def _changes(listing: Listing) -> tuple[Change, ...]:
    """What of a record is not yet as the JSON has it, the last first, so that positions hold while it is changed."""
    changes: list[Change] = []
    position = 0
    for field in fields_of(listing.noun):
        columns, change = _columns_of(listing, field), _change(listing, field)
        if change is not None:
            changes.append((position, len(columns), change))
        position += len(columns)
    return tuple(reversed(changes))


def _change(listing: Listing, field: Field) -> Callable[[Any], Any] | None:
    if field.key in listing.without:
        return None
    if field.key in listing.texts_in_bytes:
        return lambda value: value[0].decode()
    if field.shape == Noun(ModificationTag):
        tag = row_of(ModificationTag)
        return lambda value: tag(*value)
    return _stored(field.shape)


def _stored(shape: Shape) -> Callable[[Any], Any] | None:
    """What reads a column of JSON; None for any other column."""
    shape = shape.inner if isinstance(shape, Maybe) else shape
    if isinstance(shape, Table):
        return lambda value: None if value[0] is None else msgspec.Raw(value[0])
    if not isinstance(shape, Noun):
        return None
    decode = decoder_of(shape.type).decode
    return lambda value: None if value[0] is None else decode(value[0])


@cache
def _width(listing: Listing) -> int:
    """How many columns of a record are the noun's."""
    return sum(len(_columns_of(listing, field)) for field in fields_of(listing.noun))


@cache
def _row(listing: Listing) -> type[msgspec.Struct]:
    return row_of(listing.noun)


def items_of(listing: Listing, records: Iterable[asyncpg.Record]) -> list[msgspec.Struct]:
    """Records as `ENCODER` takes them."""
    make, changes, width = _row(listing), _changes(listing), _width(listing)
    items = []
    for record in records:
        values = list(record)
        del values[width:]
        for position, count, change in changes:
            values[position : position + count] = (change(values[position : position + count]),)
        items.append(make(*values))
    return items


def lines_of(listing: Listing, records: Iterable[asyncpg.Record]) -> bytes:
    """Records as NDJSON."""
    return ENCODER.encode_lines(items_of(listing, records))


def key_of(listing: Listing, record: asyncpg.Record) -> tuple[Any, ...]:
    """Where the list goes on behind this row."""
    return tuple(record[name] for name in listing.key)


# Tags


def page_tag(listing: Listing, media: str, records: Sequence[asyncpg.Record]) -> str:
    """The ETag of a page, from the hashes that its rows came with."""
    content = 0
    for record in records:
        content ^= record["content"]
    return tag_of(listing, media, len(records), content)


def tag_of(listing: Listing, media: str, count: int, content: int) -> str:
    """The ETag of a list: another one when the rows differ, or the form in which this release tells them."""
    return f'"{_form(listing, media)}-{count:x}-{content & MASK:x}"'


@cache
def _form(listing: Listing, media: str) -> str:
    described = msgspec.json.encode([wire.schema(listing.noun), media])
    return blake2b(described, digest_size=4).hexdigest()
