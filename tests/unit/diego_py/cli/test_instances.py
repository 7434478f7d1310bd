"""No state without its reason, since when, and the next attempt."""

from datetime import timedelta

from attrs import evolve

from diego_py.cli import instances
from diego_py.cli.deploy import Progress
from diego_py.models.actions import Action, RunAction
from diego_py.models.actual_lrp import ActualLRPState, Presence
from diego_py.models.desired_lrp import DesiredLRP, DesiredLRPDefinition
from diego_py.models.identifiers import Domain, ProcessGuid
from tests.unit.diego_py.clients.fake_bbs import NOW, TAG, instance

WEB = DesiredLRPDefinition(
    process_guid=ProcessGuid("web"),
    domain=Domain("d"),
    rootfs="preloaded:x",
    action=Action(run=RunAction(path="x", user="vcap")),
)
GONE = {"instance_guid": None, "cell_id": None, "net_info": None}


def test_a_crash_tells_why_and_when_it_is_tried_again() -> None:
    crashed = instance(
        WEB, 0, state=ActualLRPState.CRASHED, crash_reason="exited", next_attempt_at=NOW + timedelta(seconds=90), **GONE
    )
    row = instances.row(crashed, NOW + timedelta(seconds=30))
    assert row == ["web", "0", "CRASHED", "30s ago", "-", "-", "exited; next attempt in 1m"]


def test_what_is_given_up_says_what_a_user_can_do() -> None:
    crashed = instance(WEB, 3, state=ActualLRPState.CRASHED, crash_reason="exited", crash_count=200, **GONE)
    assert instances.reason(crashed, NOW) == "exited; given up after 200 crashes: diego restart web 3"


def test_an_old_definition_is_shown_with_its_reason() -> None:
    desired = DesiredLRP(definition=WEB, revision=2, modification_tag=TAG, created_at=NOW, updated_at=NOW)
    assert instances.outdated(instance(WEB, 0, revision=2), desired) == ""
    told = instances.outdated(instance(WEB, 0, revision=1, failure={"detail": "exited with status 1"}), desired)
    assert told == "runs revision 1 of the definition, 2 is desired: exited with status 1; diego deploy it again"
    beside = instance(WEB, 0, revision=1, presence=Presence.EVACUATING)
    assert instances.outdated(beside, desired) == "runs revision 1 of the definition, 2 is desired"
    assert instances.reason(beside, NOW) == "serves until its replacement runs"
    assert "does not answer" in instances.reason(instance(WEB, 0, presence=Presence.SUSPECT), NOW)


def test_how_far_a_deployment_is() -> None:
    rows = [
        instance(WEB, 0, revision=2, routable=True),
        instance(WEB, 1, revision=1, routable=True, presence=Presence.EVACUATING),
        instance(WEB, 1, revision=2, state=ActualLRPState.CLAIMED, net_info=None),
    ]
    progress = Progress(evolve(WEB, instances=3))
    assert progress.told == "deploy web: 3 instance(s)"
    assert progress.line(rows, 2) == "deploy web: 1 of 3 new, 1 old still serving"


def test_a_cut_reason_says_where_the_whole_is() -> None:
    waits = instance(WEB, 0, state=ActualLRPState.UNCLAIMED, placement_error="x" * 100, next_attempt_at=NOW, **GONE)
    told = instances.reason(waits, NOW, characters=10)
    assert told == "xxxxxxxxxx… (diego explain web); next attempt is due"


def test_spans() -> None:
    assert [instances.span(s) for s in (-1, 0, 59, 60, 3600, 200_000)] == ["0s", "0s", "59s", "1m", "1h", "2d"]
