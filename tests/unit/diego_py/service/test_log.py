"""One JSON object a line, with the process that wrote it."""

import json
from io import StringIO

import structlog

from diego_py.secret import Secret
from diego_py.service.clock import SystemClock
from diego_py.service.log import logger


def test_an_event_is_one_line_of_json() -> None:
    out = StringIO()
    log = logger("bbs", "bbs-1", out)
    log.info("request", path="/a\nb", status=200)
    log.debug("not written")
    (line,) = out.getvalue().splitlines()
    event = json.loads(line)
    assert event.pop("ts").endswith("Z")
    assert event == {
        "event": "request",
        "level": "info",
        "process": "bbs",
        "id": "bbs-1",
        "path": "/a\nb",
        "status": 200,
    }


def test_loggers_of_one_test_do_not_mix() -> None:
    first, second = StringIO(), StringIO()
    logger("bbs", "bbs-1", first).info("a")
    logger("cell", "cell-1", second).info("b")
    assert json.loads(first.getvalue())["process"] == "bbs"
    assert json.loads(second.getvalue())["process"] == "cell"


def test_the_log_context_is_in_every_event() -> None:
    out = StringIO()
    with structlog.contextvars.bound_contextvars(trace_id="t"):
        logger("bbs", "bbs-1", out).warning("a")
    assert json.loads(out.getvalue())["trace_id"] == "t"


def test_an_exception_is_written_on_the_same_line() -> None:
    out = StringIO()
    logger("bbs", "bbs-1", out).error("defect", exc_info=KeyError("k"))
    (line,) = out.getvalue().splitlines()
    assert "KeyError" in json.loads(line)["exception"]


def test_a_secret_in_an_event_is_not_written() -> None:
    out = StringIO()
    logger("bbs", "bbs-1", out).info("a", password=Secret("canary-55"))
    assert "canary-55" not in out.getvalue()


async def test_the_machines_clock_goes_forward() -> None:
    clock = SystemClock()
    before = clock.monotonic()
    await clock.sleep(0)
    assert clock.monotonic() >= before
    assert clock.now().utcoffset() is not None
