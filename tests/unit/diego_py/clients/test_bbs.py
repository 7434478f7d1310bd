"""The client of the BBS against a fake one over real HTTP, in both of its faces."""

import subprocess
import sys
import traceback
from collections.abc import Iterator

import pytest

import diego_py
from diego_py.call import Hop
from diego_py.clients.bbs import BbsClient
from diego_py.errors import BadAnswer, DesireFailed, ExecNotFound, HopUnreachable, InvalidSpec, Outcome
from tests.unit.diego_py.clients.fake_bbs import FakeBbs, serving

WEB = {
    "process_guid": "web",
    "domain": "default",
    "rootfs": "preloaded:busybox",
    "action": {"run": {"path": "httpd", "user": "vcap"}},
    "environment_variables": [{"name": "TOKEN", "value": "canary"}],
}


@pytest.fixture
def fake() -> FakeBbs:
    return FakeBbs()


@pytest.fixture
def url(fake: FakeBbs) -> Iterator[str]:
    with serving(fake) as url:
        yield url


async def test_desire_answers_with_models_and_sends_secrets_and_a_key(fake: FakeBbs, url: str) -> None:
    async with BbsClient(url) as bbs:
        placed = await bbs.desire({**WEB, "instances": 2}, on_failure="rollback")
    assert [one.index for one in placed.actual_lrps] == [0, 1]
    assert fake.definitions["web"].environment_variables[0].value.reveal() == "canary"
    method, path, headers = fake.seen[0]
    assert (method, path) == ("POST", "/v1/desired_lrps?on_failure=rollback")
    assert len(headers["Idempotency-Key"]) == 32


async def test_the_budget_has_the_start_timeout_on_top_and_a_wait_does_not_shorten_the_work(
    fake: FakeBbs, url: str
) -> None:
    async with BbsClient(url, wait_s=5) as bbs:
        await bbs.desire({**WEB, "start_timeout_ms": 100_000})
    headers = fake.seen[0][2]
    assert headers["Prefer"] == "wait=5"
    assert 159_000 < float(headers["X-Budget-Ms"]) < 160_000


async def test_a_failure_is_the_chain_that_it_was(fake: FakeBbs, url: str) -> None:
    fake.fails = ExecNotFound("runtime create: no such file", evidence={"exit_status": 127})
    async with BbsClient(url) as bbs:
        with pytest.raises(DesireFailed) as caught:
            await bbs.desire(WEB)
    error = caught.value
    found = error.find(ExecNotFound)
    assert found is not None
    assert found.evidence == {"exit_status": 127}
    assert error.problem["request_id"]
    told = "".join(traceback.format_exception(error))
    for hop in ("[bbs bbs-1] desire_lrp", "[auction bbs-1] place", "[rep cell-1] run_instance: runtime.exec_not_found"):
        assert hop in told


async def test_bad_fields_are_named_before_anything_is_sent(fake: FakeBbs, url: str) -> None:
    async with BbsClient(url) as bbs:
        with pytest.raises(InvalidSpec) as caught:
            await bbs.desire({**WEB, "memory_mb": "much"})
    assert caught.value.errors[0]["pointer"] == "/memory_mb"
    assert fake.seen == []


async def test_nobody_listens() -> None:
    async with BbsClient("http://127.0.0.1:1/") as bbs:
        with pytest.raises(HopUnreachable) as caught:
            await bbs.cells()
    assert caught.value.problem["outcome"] == Outcome.NOT_STARTED
    assert caught.value.problem["chain"][0]["hop"] == "bbs"


async def test_lists_go_through_all_pages(fake: FakeBbs, url: str) -> None:
    fake.page_items = 2
    async with BbsClient(url) as bbs:
        for number in range(5):
            await bbs.desire({**WEB, "process_guid": f"web-{number}"})
        names = [lrp.definition.process_guid for lrp in await bbs.desired_lrps()]
    assert names == [f"web-{number}" for number in range(5)]


async def test_fields_of_tomorrow_do_not_break_what_is_read_loosely(url: str) -> None:
    async with BbsClient(url) as bbs:
        (cell,) = await bbs.cells()
    assert (cell.cell_id, cell.live, cell.available.memory_mb, cell.capacity.memory_mb) == ("cell-1", True, 36, 100)


async def test_logs_come_line_by_line_however_long(fake: FakeBbs, url: str) -> None:
    fake.lines = [{"at": "t", "stream": "stdout", "text": "x" * 300_000}, {"at": "t", "stream": "stderr", "text": "y"}]
    async with BbsClient(url) as bbs:
        lines = [line async for line in bbs.logs("web", 0, tail=2)]
    assert [(line.stream, len(line.text)) for line in lines] == [("stdout", 300_000), ("stderr", 1)]
    assert fake.seen[0][1] == "/v1/actual_lrps/web/0/logs?tail=2"


async def test_an_answer_of_another_form_is_an_error_of_ours_whatever_was_read(fake: FakeBbs, url: str) -> None:
    fake.lines, fake.decided, fake.failures = [{"text": 5}], [{"decision": 5}], [{"id": 5}]  # type: ignore[dict-item]
    async with BbsClient(url) as bbs:
        with pytest.raises(BadAnswer) as caught:
            _ = [line async for line in bbs.logs("web", 0)]
        assert caught.value.problem["request_id"]
        with pytest.raises(BadAnswer):
            await bbs.decisions()
        with pytest.raises(BadAnswer):
            await bbs.failures()


async def test_submit_does_not_wait_and_says_where_to_look(url: str) -> None:
    async with BbsClient(url) as bbs:
        assert await bbs.submit(WEB) == "/v1/desired_lrps/web"


async def test_each_answer_tells_its_hops(url: str) -> None:
    hops: list[Hop] = []
    async with BbsClient(url, told=hops.append) as bbs:
        await bbs.desired_lrps()
    assert [hop.name for hop in hops[0].critical_path()] == ["client", "bbs"]


def test_a_program_of_ten_lines(url: str) -> None:
    with diego_py.connect(url) as bbs:
        assert len(bbs.desire(WEB).actual_lrps) == 1
        assert len(bbs.scale("web", 3).actual_lrps) == 3
        assert bbs.get("web").definition.instances == 3
        assert [one.index for one in bbs.instances("web")] == [0, 1, 2]
        bbs.stop("web", 1)
        assert bbs.restart("web", 1).index == 1
        assert bbs.delete("web").stopped == 3
        assert bbs.list() == ()
        with pytest.raises(diego_py.DiegoError):
            bbs.get("web")


def test_import_is_cheap() -> None:
    program = "import sys, diego_py; assert not {'aiohttp', 'msgspec', 'attrs', 'asyncio'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)
    assert set(dir(diego_py)) >= {"connect", "BbsClient", "DiegoError"}
    with pytest.raises(AttributeError):
        diego_py.nothing_of_this_name  # noqa: B018
