"""What every command shares: which BBS, how to answer, and the way from a failure to an exit status."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import click
import msgspec
from attrs import define, evolve, field

from diego_py import chain, wire
from diego_py.call import Call, Hop
from diego_py.cli import draw, screen, table
from diego_py.cli.lines import Line
from diego_py.clients.bbs import URL_DEFAULT, BbsClient
from diego_py.errors import DiegoError
from diego_py.service.clock import SystemClock

T = TypeVar("T")

EXIT_STATUS = {"caller": 10, "app": 11, "capacity": 12, "platform": 13, "dependency": 14}
"""By fault. Besides: 0 all is as asked, 2 the command line is wrong, 130 interrupted."""
JSON = "json"
TABLE = "table"


@define
class Session:
    """One run of the command."""

    url: str = URL_DEFAULT
    output: str = TABLE
    wait_s: int | None = None
    _hops: list[Hop] = field(factory=list, init=False)

    @property
    def is_json(self) -> bool:
        return self.output == JSON

    def run(self, what: str | Callable[[], str], work: Callable[[BbsClient], Awaitable[T]], quiet: bool = False) -> T:
        """Do `work` with a client of the BBS; on a terminal, say for what we wait unless the work itself prints."""

        async def connected() -> T:
            async with BbsClient(self.url, self.wait_s, told=self._hops.append) as bbs:
                return await work(bbs)

        with nullcontext() if quiet else screen.waiting(what):
            return asyncio.run(connected())

    def say(self, value: Any, lines: Iterable[Line | str]) -> None:
        """The result: `value` as JSON for programs, `lines` for people."""
        if self.is_json:
            click.echo(json_text(value))
            return
        screen.show(line if isinstance(line, Line) else Line(line) for line in lines)

    def say_table(self, value: Any, titles: Sequence[str], rows: Sequence[Sequence[str]], nothing: str) -> None:
        """A list: JSON, or a table, or `nothing` when it is empty."""
        self.say(value, table.align(titles, rows) if rows else [nothing])

    def say_timing(self) -> None:
        """Where the time of the last request went, for whoever watches."""
        if self._hops and screen.is_watched() and not self.is_json:
            path = self._hops[-1].critical_path()
            screen.show(draw.waterfall([draw.Hop(h.name, h.id, h.op, h.self_ms) for h in path]), err=True)

    def say_failure(self, error: DiegoError) -> int:
        """Show a failure and return its exit status. Programs find the whole document on standard output."""
        document = document_of(error)
        if self.is_json:
            click.echo(json_text(document))
        else:
            screen.show(draw.failure(document), err=True)
        return EXIT_STATUS.get(str(document.get("fault")), EXIT_STATUS["platform"])


def document_of(error: DiegoError) -> Mapping[str, Any]:
    """The failure document of an error, made here if it never met a BBS."""
    if isinstance(error.problem, Mapping):
        return error.problem
    call = Call.begin(SystemClock(), 0)
    with_frame = error if error.frame else evolve(call, here=_client_hop(call)).framed(error)
    document: Mapping[str, Any] = msgspec.json.decode(chain.problem(with_frame, call).encode())
    return document


def json_text(value: Any, indent: int = 2) -> str:
    """One JSON value; with an indent of 0 on one line. Models as the API has them, secrets as ***."""
    encoded = wire.encode(value)
    return (msgspec.json.format(encoded, indent=indent) if indent else encoded).decode()


def with_session(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command its Session, and -o, --bbs and --wait after its name as well as before it."""

    @click.option("-o", "--output", type=click.Choice([TABLE, JSON]), help="For people, or for programs.")
    @click.option("--bbs", metavar="URL", help=f"Where the BBS listens; $DIEGO_BBS, else {URL_DEFAULT}.")
    @click.option("--wait", type=click.IntRange(1, 3600), metavar="SECONDS", help="Wait this long; it then goes on.")
    @click.pass_context
    @functools.wraps(command)
    def wrapped(context: click.Context, /, **options: Any) -> Any:
        given = context.ensure_object(Session)
        given.output = options.pop("output") or given.output
        given.url = options.pop("bbs") or given.url
        given.wait_s = options.pop("wait") or given.wait_s
        return command(given, **options)

    return wrapped


def _client_hop(call: Call) -> Hop:
    return Hop("client", "diego", "check the request", call.clock.monotonic(), call.clock.now())
