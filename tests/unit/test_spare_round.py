"""The cluster of a round: what serves leaves."""

from __future__ import annotations

import pytest

from tests.fakes import make_request
from tuner.ask.deployment import parse_deployment
from tuner.retune.spare_round import on_spare


@pytest.mark.parametrize(
    ("nodes", "per_node", "layout", "left"),
    [
        (1, 8, "tp=4,pp=1,dp=1", (1, 4)),
        (1, 8, "tp=8,pp=1,dp=1", None),
        (3, 8, "tp=8,pp=1,dp=1", (2, 8)),
        (3, 8, "tp=4,pp=1,dp=1", (2, 8)),  # the rest of a node where something serves is left alone
        (3, 1, "tp=1,pp=1,dp=1", (2, 1)),
        (2, 8, "tp=8,pp=1,dp=2", None),
    ],
)
def test_trials_get_what_is_free(nodes, per_node, layout, left):
    request = make_request({"cluster.nodes": nodes, "cluster.gpus_per_node": per_node})
    found = on_spare(request, parse_deployment(layout))
    assert (None if found is None else (found.cluster.nodes, found.cluster.gpus_per_node)) == left


def test_of_groups_the_one_that_serves_gives():
    groups = [{"gpu": "h100_sxm", "nodes": 1, "gpus_per_node": 8}, {"gpu": "a100_sxm", "nodes": 2, "gpus_per_node": 8}]
    request = make_request({"cluster": groups})
    found = on_spare(request, parse_deployment("tp=8,pp=1,dp=1,gpu=h100_sxm"))
    assert (found.cluster.gpu, found.cluster.nodes) == ("a100_sxm", 2)
