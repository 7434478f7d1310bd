"""What is told of instances besides their state."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from bbs.labels import Labels, labels_of
from bbs.store import labels as stored
from diego_py.models.workload import DynamicMetricTag, MetricTagValue
from tests import strategies


@pytest.mark.parametrize(
    ("routes", "names"),
    [
        (None, []),
        ([{"hostname": "a.apps.internal"}, {"hostname": "b"}], ["a.apps.internal", "b"]),
        ([{"hostname": ""}, {"hostname": 7}, {"host": "a"}, "a", None, {"hostname": "b"}], ["b"]),
        ({"hostname": "a"}, []),
        ("a", []),
    ],
)
def test_names_are_read_from_whatever_a_client_wrote(routes: Any, names: list[str]) -> None:
    assert Labels(internal_routes=routes).hostnames() == names


def test_tags_of_one_instance() -> None:
    tags = {
        "source_id": MetricTagValue(static="app"),
        "empty": MetricTagValue(static=""),
        "instance_id": MetricTagValue(dynamic=DynamicMetricTag.INDEX),
        "process_instance_id": MetricTagValue(dynamic=DynamicMetricTag.INSTANCE_GUID),
    }
    assert Labels(metric_tags=tags).tags(7, "guid") == {
        "source_id": "app",
        "empty": "",
        "instance_id": "7",
        "process_instance_id": "guid",
    }


@given(strategies.desired_lrp_definitions())
@settings(max_examples=30)
def test_labels_are_read_as_they_were_stored(definition: Any) -> None:
    labels = labels_of(definition)
    read = stored.decoded(stored.encoded(labels))
    assert (read.hostnames(), read.tags(1, "i")) == (labels.hostnames(), labels.tags(1, "i"))
