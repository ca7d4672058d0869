"""A replica is priced once for all its copies, executors and scheduler limits, and only the best are sorted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import make_request
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.space import Space, load_space
from tuner.plan.prune import plan
from tuner.plan.ranking import smallest
from tuner.plan.replica_prices import Knobs

AXES = {
    "tp": [1, 2, 4],
    "pp": [1, 3],
    "dp": [1, 2, 4],
    "executor": ["mp", "ray"],
    "max_num_batched_tokens": [512, 4096],
    "max_num_seqs": [64, 256],
}
EXPERTS = {**AXES, "ep": [False, True], "all2all": ["allgather_reducescatter", "deepep_low_latency"]}
CASES = {
    "dense": {"space": AXES},
    "experts": {"space": EXPERTS, "model": "openai/gpt-oss-20b", "cluster.nodes": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_layout_is_priced_alone_as_in_the_whole_space(case):
    request = make_request(CASES[case])
    model, cluster = load_model(request.model), Cluster.from_spec(request.cluster)
    ranked = plan(request, model, cluster, load_space(request.space), keep=10_000).ranked
    assert len({c.layout.dp for c in ranked}) == 3
    for candidate in ranked[:: max(1, len(ranked) // 25)]:
        point = Space("one", {axis: (value,) for axis, value in candidate.layout.as_dict().items()})
        (alone,) = plan(request, model, cluster, point).ranked
        assert alone.layout == candidate.layout
        assert alone.prediction.kv_tokens == candidate.prediction.kv_tokens
        for name in ("idle_ttft_ms", "idle_tpot_ms", "ttft_ms", "tpot_ms", "goodput_req_per_s"):
            assert getattr(alone.prediction, name) == pytest.approx(getattr(candidate.prediction, name), rel=1e-9)


_KEY = st.lists(st.sampled_from([0.0, 1.0, 2.0, np.inf]), min_size=30, max_size=30)


@pytest.mark.slow
@given(keys=st.lists(_KEY, min_size=1, max_size=4), count=st.integers(1, 40))
def test_the_smallest_are_the_head_of_a_full_sort(keys, count):
    columns = [np.array(key) for key in keys]
    assert smallest(columns, count) == [int(i) for i in np.lexsort(columns[::-1])[:count]]


def test_knobs_that_no_pair_of_which_suits_are_left_as_they_are_given():
    knobs = Knobs(np.array([64.0, 128.0]), np.array([256.0, 512.0]))
    fitted = knobs.fitting(ParallelLayout(max_num_batched_tokens=64, max_num_seqs=512))
    assert (fitted.max_num_batched_tokens, fitted.max_num_seqs) == (128, 256)
    assert [knobs.layout(fitted, i).max_num_seqs for i in range(knobs.count)] == [256, 512, 256, 512]
