"""The map of a layout: each rank on a device of its own, and links that carry what a request sends."""

from __future__ import annotations

from collections import Counter

import pytest

from deploy.report.rank_map import rank_figure
from tests.fakes import make_request
from tuner.app.tune.report_ranks import ranks_shown
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.cost.volume import request_operations, system_totals

REQUEST = make_request({"cluster.nodes": 2, "cluster.gpus_per_node": 6})


@pytest.mark.parametrize(
    ("layout", "nodes"),
    [
        ("tp=4,dp=2", [[0, 1, 2, 3], [0, 1, 2, 3]]),
        ("tp=2,dp=5", [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3]]),
        ("tp=4,pp=2,executor=ray", [[0, 1, 2, 3, 4, 5], [0, 1]]),
        ("tp=1", [[0]]),
    ],
)
def test_a_replica_that_fits_a_node_stays_on_it_and_others_fill_nodes(layout, nodes):
    shown = ranks_shown(REQUEST, ParallelLayout.parse(layout))
    found = [[rank.device for rank in shown.ranks if rank.node == node] for node in range(len(nodes))]
    assert found == nodes
    assert len({rank.name for rank in shown.ranks}) == len(shown.ranks)


@pytest.mark.parametrize("text", ["tp=4", "pp=2", "tp=2,pp=2", "tp=2,pp=2,dp=2", "tp=1,dp=4"])
def test_links_carry_what_a_request_sends(text):
    layout = ParallelLayout.parse(text)
    shown = ranks_shown(REQUEST, layout)
    work = REQUEST.workload
    operations = request_operations(load_model(REQUEST.model), layout, work.prompt_tokens.mean, work.output_tokens.mean)
    sent = system_totals(layout, operations)[1] * layout.dp
    assert sum(link.mb for link in shown.links) * 1e6 == pytest.approx(sent, rel=1e-6)
    assert {link.kind for link in shown.links} == {
        kind for kind, degree in (("tensor", layout.tp), ("pipeline", layout.pp)) if degree > 1
    }


def test_the_figure_shows_every_rank_once_and_every_link():
    shown = ranks_shown(REQUEST, ParallelLayout.parse("tp=2,pp=2"))
    *bands, ranks = rank_figure(shown)["data"]
    assert Counter(zip(ranks["x"], ranks["y"], strict=True)).most_common(1)[0][1] == 1
    assert sum(trace["x"].count(None) for trace in bands) == len(shown.links)
