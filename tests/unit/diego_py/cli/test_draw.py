"""What people see of a failure: golden texts, and properties that hold for any chain."""

import inspect
from typing import Any

from diego_py.cli import draw
from diego_py.cli.lines import plain


def frame(hop: str, op: str, self_ms: float, **more: Any) -> dict[str, Any]:
    return {"hop": hop, "id": "x", "op": op, "code": f"{hop}.failed", "self_ms": self_ms, **more}


def document(**changes: Any) -> dict[str, Any]:
    return {
        "title": "The start command does not exist in the image",
        "status": 500,
        "detail": "runtime create: exec /app/serve: no such file or directory",
        "code": "runtime.exec_not_found",
        "fault": "app",
        "outcome": "rolled_back",
        "retryable": False,
        "request_id": "01jd",
        "elapsed_ms": 1874.0,
        "subject": {"kind": "lrp", "guid": "web", "index": 0},
        "instance": "/v1/failures/f1",
        "chain": [
            frame("bbs", "desire_lrp", 9.4, id="bbs-1"),
            frame("auction", "place web/0", 22.0, id="bbs-1"),
            frame("rep", "run_instance", 14.0, id="cell-3", attempt=1),
            frame(
                "garden",
                "create",
                1733.0,
                id="cell-3",
                steps=[{"op": "rootfs", "ms": 1602.0}, {"op": "firewall", "ms": 88.0}, {"op": "depot", "ms": 0.1}],
            ),
            frame("runc", "create", 57.0, id="cell-3", code="runtime.exec_not_found"),
        ],
        "evidence": {
            "runtime_log": [{"level": "error", "msg": "exec /app/serve: no such file or directory"}],
            "stderr": {"text": "exec /app/serve: no such file or directory\n", "bytes": 43, "truncated": False},
        },
        "next": [
            {"do": "Correct action.run.path"},
            {"do": "Read about this code", "href": "/errors/runtime.exec_not_found"},
        ],
        **changes,
    }


def golden(text: str) -> str:
    return inspect.cleandoc(text)


def drawn(**changes: Any) -> str:
    return plain(draw.failure(document(**changes)))


def test_a_chain_down_to_the_runtime() -> None:
    assert drawn() == golden(
        """
        ✗ web/0: The start command does not exist in the image   1.87 s   request 01jd
          bbs bbs-1            desire_lrp      9.4 ms
          └ auction bbs-1      place web/0      22 ms
            └ rep cell-3       run_instance     14 ms   attempt 1
              └ garden cell-3  create          1.73 s   rootfs 1602 · firewall 88 ms
                └ runc cell-3  create           57 ms   ✗ runtime.exec_not_found
          runtime create: exec /app/serve: no such file or directory
          the runtime's log
          │ error exec /app/serve: no such file or directory
          fault: app · everything was undone, nothing is left running · unchanged it will fail again
          stored as /v1/failures/f1
          next:  Correct action.run.path
                 Read about this code:  /errors/runtime.exec_not_found
        """
    )


def test_no_cell_fits() -> None:
    placement = {
        "need": {"memory_mb": 65536, "containers": 1},
        "cells": 2,
        "verdicts": {"no_fit": 1, "draining": 1},
        "bids": [
            {
                "cell": "cell-1",
                "verdict": "no_fit",
                "have": {"memory_mb": 936, "containers": 119},
                "lacks": {"memory_mb": {"need": 65536, "have": 936}},
            },
            {
                "cell": "cell-2",
                "verdict": "draining",
                "have": {"memory_mb": 1000, "containers": 120},
                "detail": "the cell is being emptied",
            },
        ],
    }
    chain = [frame("bbs", "desire_lrp", 0.8), frame("auction", "place big/0", 2.0, code="auction.no_cell_fits")]
    told = drawn(
        title="No cell has room for the instance",
        detail="memory_mb 65536 needed, 936 at most free on 1 cell(s)",
        subject={"guid": "big", "index": 0},
        chain=chain,
        evidence=None,
        placement=placement,
        fault="capacity",
        outcome="not_started",
        retry_after_s=1.0,
        elapsed_ms=5.0,
        instance=None,
        next=[{"do": "See what each cell has left", "run": "diego cells"}],
    )
    assert told == golden(
        """
        ✗ big/0: No cell has room for the instance   5.0 ms   request 01jd
          bbs x        desire_lrp     0.8 ms
          └ auction x  place big/0    2.0 ms   ✗ auction.no_cell_fits
          memory_mb 65536 needed, 936 at most free on 1 cell(s)
          need memory_mb 65536, containers 1 on one of 2 cell(s): 1 no_fit, 1 draining
            CELL    VERDICT   HAVE memory_mb  HAVE containers  WHY
            cell-1  no_fit               936              119  memory_mb: needs 65536, has 936
            cell-2  draining            1000              120  the cell is being emptied
          fault: capacity · nothing was started · try again in 1 s
          next:  See what each cell has left:  diego cells
        """
    )


def test_a_plan_takes_the_score_apart_and_counts_what_is_short() -> None:
    told = {
        "need": {"memory_mb": 64},
        "cells": 7_500,
        "verdicts": {"fits": 1, "no_fit": 7_498, "won": 1},
        "short": {"memory_mb": {"cells": 7_498, "need": 64, "most": 12}},
        "bids": [
            {"cell": "a", "zone": "z1", "verdict": "won", "have": {"memory_mb": 900}, "score": 0.25, "in_zone": 0,
             "parts": {"load": 0.25, "starting": 0.0, "same_process": 0.0}},
            {"cell": "b", "zone": "z2", "verdict": "fits", "have": {"memory_mb": 90}, "score": 1000.75, "in_zone": 3,
             "parts": {"load": 0.5, "starting": 0.25, "same_process": 1000.0}},
        ],
    }  # fmt: skip
    assert "\n".join(line.text for line in draw.placement(told, indent="")) == golden(
        """
          need memory_mb 64 on one of 7500 cell(s): 1 fits, 7498 no_fit, 1 won
            memory_mb: 64 needed, 12 at most free on 7498 cell(s) that lack it
            CELL  VERDICT  HAVE memory_mb  WHY
            a     won                 900  score 0.25
            b     fits                 90  score 1000.75 = load 0.5 + starting 0.25 + same_process 1000; 3 in zone z2
        """
    )


def test_an_app_that_ends() -> None:
    evidence = {
        "exit_status": 3,
        "signal": None,
        "oom_killed": False,
        "app_log_tail": ["starting", "no configuration"],
        "cgroup": {"memory_limit_bytes": 33554432, "memory_peak_bytes": 3145728, "oom_kill": 0},
    }
    told = drawn(chain=[frame("executor", "start", 2.5)], evidence=evidence, detail="ended", instance=None, next=[])
    assert told == golden(
        """
        ✗ web/0: The start command does not exist in the image   1.87 s   request 01jd
          executor x  start    2.5 ms   ✗ executor.failed
          ended
          exit status 3
          cgroup: memory limit 32.0 MiB, memory peak 3.0 MiB
          the app's last lines
          │ starting
          │ no configuration
          fault: app · everything was undone, nothing is left running · unchanged it will fail again
        """
    )


def test_the_last_answer_of_a_check() -> None:
    check = {
        "kind": "http",
        "target": "http://10.0.0.2:8080/",
        "answer": "status 503",
        "attempts": 13,
        "elapsed_ms": 3000,
    }
    told = drawn(evidence={"check": check})
    assert "  check: http http://10.0.0.2:8080/ answered: status 503 (13 attempts in 3.0 s)" in told.splitlines()


def test_earlier_attempts_stand_beside_the_one_that_decided() -> None:
    chain = [
        frame("auction", "place", 1.0),
        frame("rep", "run", 2.0, id="cell-1", attempt=1),
        frame("garden", "create", 3.0, id="cell-1"),
        frame("rep", "run", 2.0, id="cell-2", attempt=2),
    ]
    names = [line.text.split("  run")[0].split("  create")[0].rstrip() for line in draw.chain(chain)[1:]]
    assert names == ["  └ rep cell-1", "    └ garden cell-1", "  └ rep cell-2"]


def test_every_wrong_field_and_every_instance_is_named() -> None:
    told = drawn(
        errors=[{"pointer": "/memory_mb", "code": "out_of_range", "detail": "must be at least 0"}],
        instances=[
            {"index": 0, "state": "RUNNING", "cell_id": "cell-1"},
            {"index": 1, "state": "FAILED", "code": "app.exited", "detail": "exited with status 3"},
        ],
    )
    assert "    /memory_mb: must be at least 0" in told.splitlines()
    assert "    1  FAILED  app.exited exited with status 3" in told.splitlines()


def test_a_document_of_another_version_is_drawn_too() -> None:
    told = plain(draw.failure({"title": "T", "outcome": "new_word", "chain": []}))
    assert told.splitlines()[0].startswith("✗ T")
    assert "new_word" in told


def test_long_logs_show_their_end() -> None:
    told = drawn(evidence={"app_log_tail": [f"line {number}" for number in range(50)]})
    assert "  the app's last lines, the last 20 of 50 lines" in told.splitlines()
    assert "  │ line 49" in told.splitlines()
    assert "line 29" not in told


def test_the_waterfall_shows_each_hops_own_time() -> None:
    hops = [draw.Hop("client", "diego", "desire", 10.0), draw.Hop("bbs", "bbs-1", "desire_lrp", 30.0)]
    assert plain(draw.waterfall(hops, width=8)) == (
        "  client diego  desire         10 ms   ██\n  bbs bbs-1     desire_lrp     30 ms     ██████"
    )


def test_durations() -> None:
    assert [draw.duration(ms) for ms in (0.04, 9.94, 57.4, 999.4, 1874, 62_000, 123_000)] == [
        "0.0 ms",
        "9.9 ms",
        "57 ms",
        "999 ms",
        "1.87 s",
        "62.00 s",
        "2 m 03 s",
    ]
