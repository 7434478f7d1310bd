"""docs/chain.md shows a document that the code really makes, and names every member, header and value there is."""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

from diego_py.call import Call, Hop
from diego_py.chain import Problem, clip, problem, rebuild
from diego_py.errors import (
    DesireFailed,
    DiegoError,
    ExecNotFound,
    ExecutorFailed,
    Fault,
    Frame,
    GardenFailed,
    InsufficientResources,
    Outcome,
    PlacementFailed,
    RepFailed,
    RuntimeFailed,
)
from diego_py.http import headers, server
from tests.unit.diego_py.service.hand_clock import HandClock

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "chain.md").read_text()
SUBJECT = {"kind": "lrp", "guid": "web", "index": 0, "instance_guid": "6f1c", "domain": "shop"}
PLACEMENT = {
    "need": {"memory_mb": 512, "disk_mb": 1024, "containers": 1},
    "cells": 2,
    "verdicts": {"tried": 1, "won": 1},
}


def refuse(clock: HandClock, cell: Call) -> None:
    with cell.hop("rep", "cell-1", "run_instance", RepFailed):
        clock.pass_ms(1.5)
        raise InsufficientResources("reserve memory_mb 512: 128 free", outcome=Outcome.NOT_STARTED)


def run(clock: HandClock, cell: Call) -> None:
    with cell.hop("rep", "cell-2", "run_instance", RepFailed) as rep:
        clock.pass_ms(4)
        with rep.hop("executor", "cell-2", "start", ExecutorFailed) as executor:
            clock.pass_ms(1)
            with executor.hop("garden", "cell-2", "create", GardenFailed) as garden:
                with garden.step("rootfs"):
                    clock.pass_ms(35)
                with garden.step("network"):
                    clock.pass_ms(22)
                with garden.hop("runc", "cell-2", "create", RuntimeFailed):
                    clock.pass_ms(57)
                    words = 'exec: "/app/serve": stat /app/serve: no such file or directory'
                    evidence = {"exit_status": 1, "stderr": clip(words)}
                    raise ExecNotFound(f"runtime create: {words}", evidence=evidence, outcome=Outcome.ROLLED_BACK)


def answered(clock: HandClock, call: Call, work: Any, attempt: int) -> DiegoError:
    """The failure of `work` on its cell, as the BBS's client of the cell raises it."""
    below = Hop("rep", "-", "run_instance", clock.monotonic(), clock.now())
    with pytest.raises(DiegoError) as caught:
        work(clock, attrs.evolve(call, here=None))
    below.finish(clock.monotonic())
    assert call.here is not None
    call.here.children.append(below)
    error = rebuild(json.loads(problem(caught.value, call).encode()))
    assert error.frame is not None
    error.frame = attrs.evolve(error.frame, attempt=attempt)
    return error


def example() -> Problem:
    clock = HandClock()
    call = attrs.evolve(Call.begin(clock, 30_000, "9a1e7c"), trace_id="4bf92f3577b34da6a3ce929d0e0e4736")
    failures: list[DiegoError] = []
    with suppress(DesireFailed), call.hop("bbs", "bbs-1", "desire_lrp", DesireFailed) as bbs:
        clock.pass_ms(3)
        try:
            with bbs.hop("auction", "bbs-1", "place web/0", PlacementFailed) as auction:
                clock.pass_ms(0.4)
                first = answered(clock, auction, refuse, 1)
                second = answered(clock, auction, run, 2)
                raise PlacementFailed("place web/0", attempts=[first], placement=PLACEMENT) from second
        except PlacementFailed as failed:
            outer = DesireFailed("desire web")
            outer.__cause__ = failed
            failures.append(bbs.framed(outer))
    return attrs.evolve(problem(failures[0], call, SUBJECT), instance="/v1/failures/01c4")


def shown() -> dict[str, Any]:
    found = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    document: dict[str, Any] = json.loads(found[1])
    return document


def test_the_example_is_what_the_code_makes() -> None:
    assert shown() == json.loads(example().encode())


def test_the_example_becomes_the_exceptions_that_the_page_tells_of() -> None:
    error = rebuild(shown())
    assert [type(link) for link in error.links()] == [
        DesireFailed,
        PlacementFailed,
        RepFailed,
        ExecutorFailed,
        GardenFailed,
        ExecNotFound,
    ]
    placement = error.find(PlacementFailed)
    assert placement is not None
    assert type(placement.attempts[0]) is InsufficientResources


def test_the_headers_of_the_example_are_those_of_the_page() -> None:
    response = server.document(example(), Call.begin(HandClock(), 1, "9a1e7c"))
    for name in ("Server-Timing", "Proxy-Status", "Content-Type"):
        assert f"{name}: {response.headers[name]}\n" in PAGE.replace("\n    ", " ")


@pytest.mark.parametrize("member", [field.name for field in (*attrs.fields(Problem), *attrs.fields(Frame))])
def test_every_member_is_explained(member: str) -> None:
    assert f"`{member}`" in PAGE


@pytest.mark.parametrize("value", [*Fault, *Outcome])
def test_every_value_is_explained(value: str) -> None:
    assert f"| `{value}` |" in PAGE


HEADERS = [
    *(headers.REQUEST_ID, headers.VCAP_REQUEST_ID, headers.TRACEPARENT, headers.BUDGET_MS, headers.SERVER_TIMING),
    *(headers.PROXY_STATUS, headers.PREFER, headers.IDEMPOTENCY_KEY, "Retry-After", "Allow"),
]


@pytest.mark.parametrize("header", HEADERS)
def test_every_header_is_explained(header: str) -> None:
    assert f"`{header}`" in PAGE
