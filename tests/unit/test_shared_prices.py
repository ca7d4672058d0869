"""What layouts of a plan share is priced once, and each is told what it would be told alone."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fakes import make_request
from tuner.app.wiring import breakdowns, memories, plan_request
from tuner.ask.cluster import requested_cluster
from tuner.ask.requested_model import requested_model
from tuner.cost.compute.gemm import _CHOSEN_TILES, _tiled_ms, _waves_ms
from tuner.cost.compute.kinds import fit_for, precision

ASKED = {
    "dense": {"space": "dense", "cluster.nodes": 2, "cluster.gpus_per_node": 8},
    "experts": {"model": "Qwen/Qwen3-30B-A3B", "space": "moe", "cluster.gpus_per_node": 8},
}


@pytest.mark.slow
@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_each_layout_is_told_what_it_would_be_told_alone(asked):
    request = make_request(asked)
    found, together = plan_request(request)
    model, cluster = requested_model(request), requested_cluster(request)
    for layout, split in together.items():
        assert breakdowns(request, model, cluster, [layout]) == {layout: split}
    layouts = [candidate.layout for candidate in found.ranked]
    for layout, held in memories(request, layouts).items():
        assert repr(memories(request, [layout])[layout]) == repr(held)
    assert len(layouts) > len({(layout.tp, layout.pp, layout.ep) for layout in layouts})  # some do share


def test_tiles_looked_at_together_cost_what_each_costs():
    request = make_request(ASKED["dense"])
    profile = requested_cluster(request).groups[0].profile
    kind = precision(profile, "bf16")
    fit = fit_for(profile.gemm, kind, "gemm")
    m, n, k = np.array([1.0, 7.0, 64.0, 300.0, 8192.0]), np.float64(5120), np.float64(1280)
    peak = profile.peak_flops_per_s[kind.math] * fit.compute_efficiency
    each = [
        _waves_ms(profile, fit, k, peak * share, np.asarray(tm), np.asarray(tn), np.ceil(m / tm) * np.ceil(n / tn))
        for tm, tn, share in _CHOSEN_TILES[fit.kernel]
    ]
    assert np.array_equal(_tiled_ms(profile, kind, fit, m, np.asarray(n), np.asarray(k)), np.minimum.reduce(each))
